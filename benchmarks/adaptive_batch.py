"""A batch that follows the measured noise scale against fixed ones, at equal samples.

    OMP_NUM_THREADS=1 python benchmarks/adaptive_batch.py [--seeds 1 2 3] [--epochs 3]

Fashion-MNIST, a 784-64-10 MLP with layer norm, SGD with momentum; a tenth of the train set validates, and no figure is of the
test set. The rate, 0.05 at batch 64, is not tuned for any row: all get theirs from it, by the law that the row names. One
process, one run after the other. Figures go to ``benchmarks/adaptive_batch.json`` as they come; what is there already is not
run again. Prints the table.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("DISTTRAIN_DATA", ROOT / "data"))
KEPT = Path(__file__).with_suffix(".json")
SMALL, LARGE = 64, 2048
SLICES = "noise_scale={every_steps: 2, slice: 16}"
COMMON = [
    f"task={{name: fashion_mnist, root: {DATA / 'fashion-mnist'}}}",
    "model={name: mlp, hidden: [64], norm: layer}",
    "data.validation={fraction: 0.1}",
    "schedule={warmup: {epochs: 0.2}, decay: {kind: cosine}}",
    "log.tensorboard=false",
]
SGD = "optimizer={name: sgd, lr: 0.05, momentum: 0.9, reference_batch: 64, lr_scaling: "
ROWS = {
    f"fixed {SMALL}": [f"batch={{global: {SMALL}}}", SGD + "linear}"],
    f"fixed {LARGE}, linear": [f"batch={{global: {LARGE}}}", SGD + "linear}"],
    f"fixed {LARGE}, square root": [f"batch={{global: {LARGE}}}", SGD + "sqrt}"],
    "noise_scale, linear": [
        f"batch={{global: {SMALL}, adaptive: {{policy: noise_scale, max: {LARGE}}}}}",
        SLICES,
        SGD + "linear}",
    ],
    "noise_scale, square root": [
        f"batch={{global: {SMALL}, adaptive: {{policy: noise_scale, max: {LARGE}, law: sqrt}}}}",
        SLICES,
        SGD + "linear}",
    ],
    "norm_test, square root": [
        f"batch={{global: {SMALL}, adaptive: {{policy: norm_test, max: {LARGE}, law: sqrt}}}}",
        SLICES,
        SGD + "linear}",
    ],
}


def train(words: list[str], seed: int, epochs: float, directory: Path) -> dict[str, Any]:
    """Updates, validation accuracy in percent at the end, and the batches from which update on."""
    run_dir = directory / "run"
    command = [sys.executable, "-m", "disttrain", "train", "--run-dir", str(run_dir), *COMMON, *words]
    command += [f"epochs={epochs}", "evaluate={epochs: 1000, train: false}", f"seed={seed}"]
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    last = next(line for line in reversed(lines) if line.get("split") == "validation")
    changes = [[line["from_update"], line["global_batch"]] for line in lines if line.get("event") == "batch"]
    return {"updates": last["step"], "samples": last["samples"], "accuracy": 100 * last["accuracy"], "batches": changes}


def table(kept: dict[str, Any], epochs: float) -> None:
    print("| batch | updates | validation accuracy | by seed | batches of the first seed |\n|---|---|---|---|---|")
    for row in ROWS:
        found = [value for key, value in sorted(kept.items()) if key.startswith(f"{row} | {epochs:g} ")]
        if not found:
            continue
        updates = sorted(each["updates"] for each in found)
        accuracy = [each["accuracy"] for each in found]
        course = ", ".join(f"{batch} from {update:,}" for update, batch in found[0]["batches"]) or "-"
        span = f"{updates[0]:,}" if updates[0] == updates[-1] else f"{updates[0]:,} to {updates[-1]:,}"
        each_seed = " / ".join(f"{value:.2f}" for value in accuracy)
        print(f"| {row} | {span} | {statistics.mean(accuracy):.2f} % | {each_seed} | {course} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--epochs", type=float, default=3.0)
    arguments = parser.parse_args()
    kept: dict[str, Any] = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    for seed in arguments.seeds:
        for row, words in ROWS.items():
            key = f"{row} | {arguments.epochs:g} epochs | seed {seed}"
            if key in kept:
                continue
            with tempfile.TemporaryDirectory() as directory:
                kept[key] = train(words, seed, arguments.epochs, Path(directory))
            KEPT.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")
            print(f"{key}: {kept[key]}", file=sys.stderr, flush=True)
    table(kept, arguments.epochs)


if __name__ == "__main__":
    main()
