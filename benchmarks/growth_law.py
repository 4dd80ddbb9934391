"""What a batch that grows instead of a decaying rate should keep with LAMB: lr over batch, or lr over its square root (Seesaw).

    OMP_NUM_THREADS=1 python benchmarks/growth_law.py [--seeds 1 2 3] [--rates 0.01 0.02 0.04] [--epochs 30] [--test RATE RATE]

Both laws make the same batches, 512 growing to 8192, so the same updates; only the learning rate differs. Each law gets its own
best rate: every rate is trained on the first 54,000 images and judged on the last 6,000 of the train set, which is in no
order. ``--test`` takes the two rates that were chosen, of lr_over_batch and of lr_over_sqrt_batch, trains on all 60,000 and reads
the test set. One process, one run after the other, laws in turns.
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

from disttrain.data import ArrayDataset
from disttrain.data.dataset import Dataset
from disttrain.tasks.base import Sizes
from disttrain.tasks.mnist import FashionMnist

ROOT = Path(__file__).resolve().parent.parent
LAWS = ("lr_over_batch", "lr_over_sqrt_batch")
TRAINED = 54000


class HeldOut(FashionMnist):
    """Fashion-MNIST without its test set: the last images of the train set stand in for it."""

    def sizes(self) -> Sizes:
        return Sizes(TRAINED, super().sizes().train - TRAINED)

    def load(self) -> tuple[Dataset, Dataset]:
        train, _ = super().load()
        assert isinstance(train, ArrayDataset)
        return ArrayDataset(*(t[:TRAINED] for t in train.tensors)), ArrayDataset(*(t[TRAINED:] for t in train.tensors))


def train(law: str, rate: float, seed: int, epochs: int, task: str, directory: Path) -> tuple[float, int]:
    """Accuracy in percent at the end of the run, and its updates."""
    run_dir = directory / f"{law}-{rate}-{seed}-{task.rpartition(':')[2]}"
    command = [sys.executable, "-m", "disttrain", "train", str(ROOT / "configs/small/fashion_b8192_growth.yaml")]
    command += [
        "--run-dir",
        str(run_dir),
        f"task={{name: '{task}'}}",
        f"batch.growth.keep={law}",
        f"optimizer={{name: lamb, lr: {rate}, betas: [0.9, 0.98]}}",
        "schedule={warmup: {epochs: 1}, decay: {kind: exponential, end: 0.005}}",
        f"epochs={epochs}",
        "data={workers: 0}",
        "evaluate.epochs=100000",
        f"seed={seed}",
    ]
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    last = next(line for line in reversed(lines) if "accuracy" in line)
    return 100.0 * last["accuracy"], last["step"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--rates", type=float, nargs="+", default=[0.01, 0.02, 0.04])
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--test", type=float, nargs=2, default=None, metavar="RATE")
    arguments = parser.parse_args()
    rates = (
        [dict(zip(LAWS, arguments.test, strict=True))]
        if arguments.test
        else [dict.fromkeys(LAWS, r) for r in arguments.rates]
    )
    task = "fashion_mnist" if arguments.test else "benchmarks.growth_law:HeldOut"
    found: dict[tuple[str, float], list[float]] = {}
    updates = 0
    with tempfile.TemporaryDirectory() as directory:
        for seed in arguments.seeds:
            for each in rates:
                for law, rate in each.items():
                    accuracy, updates = train(law, rate, seed, arguments.epochs, task, Path(directory))
                    found.setdefault((law, rate), []).append(accuracy)
                    print(f"{law:20} rate {rate:<6g} seed {seed}  {accuracy:.2f} %", file=sys.stderr, flush=True)
    print(f"| keep | rate | accuracy by seed {arguments.seeds} | mean | updates |\n|---|---|---|---|---|")
    for (law, rate), values in sorted(found.items()):
        each_seed = " / ".join(f"{value:.2f}" for value in values)
        print(f"| `{law}` | {rate:g} | {each_seed} | {statistics.mean(values):.2f} % | {updates} |")


if __name__ == "__main__":
    main()
