"""What a large batch costs on real data, and what each method gives back: Fashion-MNIST, batch 64 against 8192.

    OMP_NUM_THREADS=1 python benchmarks/large_batch.py [--seeds 1 2 3] [--jobs 2] [--only NAME ...]

Every row is a recipe of ``configs/small`` with overrides, trained by ``disttrain train`` in one process for the same number
of epochs (regime adaptation excepted: there the number of updates is the same). Prints, as Markdown, the updates made, the mean
test accuracy of the seeds, their spread (half of largest minus smallest), and the difference from the reference. Batch norm
takes its statistics over the whole batch, or over ghosts where the recipe says so; neither depends on the number of ranks.

This is no fair comparison of methods: learning rates of LARS, LAMB, NovoGrad and growth were chosen by the test accuracy on
seed 11, from three to five values each; SGD's follow from the reference's by the rule in question. The table shows other
seeds. The regime's row takes a quarter of an hour for each seed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SMALL = ROOT / "configs" / "small"


@dataclass(frozen=True)
class Row:
    """One line of the table: a recipe with overrides."""

    what: str
    recipe: str
    overrides: tuple[str, ...] = ()


SGD = "optimizer={{name: sgd, lr: 0.05, reference_batch: 64, lr_scaling: {}, momentum: 0.9, nesterov: true}}"
WARMUP = "schedule.warmup={kind: linear, epochs: 2}"
ROWS = {
    "reference": Row("batch 64, SGD", "fashion_b64_sgd"),
    "naive": Row("8192, nothing done", "fashion_b8192_naive"),
    "linear": Row("linear scaling", "fashion_b8192_naive", (SGD.format("linear"),)),
    "linear-warmup": Row(
        "linear scaling, gradual warmup of 5 epochs",
        "fashion_b8192_naive",
        (SGD.format("linear"), "schedule.warmup={kind: gradual, epochs: 5}"),
    ),
    "sqrt": Row("square-root scaling", "fashion_b8192_naive", (SGD.format("sqrt"),)),
    "sqrt-warmup": Row("square-root scaling, warmup", "fashion_b8192_naive", (SGD.format("sqrt"), WARMUP)),
    "ghost": Row("square-root scaling, warmup, ghosts of 64", "fashion_b8192_sgd_sqrt"),
    "noise": Row("16 x the rate, warmup, noise of batch 512", "fashion_b8192_noise"),
    "noise-without": Row("the same without the noise", "fashion_b8192_noise", ("gradient.noise=null",)),
    "lars": Row("LARS", "fashion_b8192_lars"),
    "lamb": Row("LAMB", "fashion_b8192_lamb"),
    "novograd": Row("NovoGrad", "fashion_b8192_novograd"),
    "growth": Row("SGD, batch 512 growing to 8192 instead of decay", "fashion_b8192_growth"),
    "lamb-ema": Row(
        "LAMB and an average of the weights", "fashion_b8192_lamb", ("average={kind: ema, half_life: {epochs: 0.5}}",)
    ),
    "lamb-growth": Row(
        "LAMB, batch 512 growing to 8192 instead of decay",
        "fashion_b8192_growth",
        (
            "optimizer={name: lamb, lr: 0.02, betas: [0.9, 0.98]}",
            "schedule={warmup: {epochs: 1}, decay: {kind: exponential, end: 0.005}}",
        ),
    ),
    "regime": Row("regime adaptation, ghosts of 64, noise of batch 64", "fashion_b8192_regime"),
}


def train(row: Row, seed: int, directory: Path) -> tuple[float, int]:
    """Test accuracy, in percent, at the end of the run, and the updates it took."""
    run_dir = directory / f"{row.recipe}-{abs(hash(row))}-{seed}"
    command = [sys.executable, "-m", "disttrain", "train", str(SMALL / f"{row.recipe}.yaml")]
    command += [
        "--run-dir",
        str(run_dir),
        f"seed={seed}",
        "evaluate.epochs=100000",
        "log.every_steps=500",
        *row.overrides,
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    last = next(line for line in reversed(lines) if "accuracy" in line)
    return 100.0 * last["accuracy"], last["step"]


def table(rows: dict[str, Row], found: dict[str, list[float]], updates: dict[str, int], seeds: Sequence[int]) -> str:
    """The results as Markdown."""
    reference = statistics.mean(found["reference"])
    lines = ["| row | recipe | updates | test accuracy, mean | spread | against the reference |"]
    lines.append("|---|---|---|---|---|---|")
    for name, row in rows.items():
        mean, half = statistics.mean(found[name]), (max(found[name]) - min(found[name])) / 2
        recipe = " ".join([f"`{row.recipe}`", *(f"`{override}`" for override in row.overrides)])
        numbers = f"{updates[name]:,} | {mean:.2f} % | ± {half:.2f} | {mean - reference:+.2f}"
        lines.append(f"| {row.what} | {recipe} | {numbers} |")
    return "\n".join(lines) + f"\n\nSeeds {', '.join(map(str, seeds))}.\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--jobs", type=int, default=2, help="runs at the same time, one core each")
    parser.add_argument("--only", nargs="+", choices=list(ROWS), default=list(ROWS))
    arguments = parser.parse_args()
    rows = {name: row for name, row in ROWS.items() if name in {"reference", *arguments.only}}
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as directory, ThreadPoolExecutor(arguments.jobs) as pool:
        # The longest first, so that no core is idle at the end.
        todo = [
            (name, seed) for name in sorted(rows, key=lambda name: "regime" not in name) for seed in arguments.seeds
        ]
        results = pool.map(lambda job: (job[0], train(rows[job[0]], job[1], Path(directory))), todo)
        found: dict[str, list[float]] = {}
        updates: dict[str, int] = {}
        for name, (accuracy, updates[name]) in results:
            found.setdefault(name, []).append(accuracy)
            print(f"{time.monotonic() - began:7.0f} s  {name:20} {accuracy:.2f} %", file=sys.stderr, flush=True)
    print(table(rows, found, updates, arguments.seeds))


if __name__ == "__main__":
    main()
