"""What the noise scale's readings are off by while weights move: each against the exact moments at that update's weights.

    OMP_NUM_THREADS=1 python benchmarks/noise_moving.py [--seeds 3] [--to benchmarks/noise_moving.json]
    python benchmarks/noise_moving.py --table     # from the JSON

A small network with layer norm is trained on noisy waves, with 1 label in 10 drawn at random, at a constant rate. Before every
third or ninth update all per-sample gradients are taken in float64. A batch drawn with replacement knows nothing of the weights;
one of a shuffled epoch does: they have been fitted to what the epoch has shown already, and not to what is left.

One process; goes on where it was killed: runs in the JSON are skipped.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import disttrain
from disttrain.data import ArrayDataset
from disttrain.grads import NoiseScale, noise_scale_moments

BATCH, UPDATES, FIRST = 64, 900, 200
"""Updates before FIRST are left out."""
SIZES, ORDERS = (640, 2560), ("global_shuffle", "replacement")


def waves(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Noisy sines of five frequencies (count, 24), and which; one in ten says anything."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, 5, count)
    angle = (1 + labels)[:, None] * np.linspace(0, 1, 24) + draw.uniform(0, 0.4, (count, 1))
    x = np.sin(2 * np.pi * angle) * draw.uniform(0.5, 1.5, (count, 1)) + draw.normal(0, 0.8, (count, 24))
    said = np.where(draw.random(count) < 0.1, draw.integers(0, 5, count), labels)
    return torch.tensor(x, dtype=torch.float32), torch.tensor(said)


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(24, 24), nn.LayerNorm(24), nn.ReLU(), nn.Linear(24, 5))


def exact(model: nn.Module, x: Tensor, y: Tensor) -> tuple[float, float]:
    """``|G_N|^2`` and ``tr(Sigma)``, N - 1, from the gradient of each sample in float64."""
    weights = {name: p.detach().double() for name, p in model.named_parameters()}
    frame = network().double()

    def loss(weights: dict[str, Tensor], one: Tensor, label: Tensor) -> Tensor:
        return F.cross_entropy(torch.func.functional_call(frame, weights, (one[None],)), label[None])

    found = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(weights, x.double(), y)
    rows = torch.cat([g.flatten(1) for g in found.values()], dim=1)
    mean = rows.mean(0)
    return float(mean.square().sum()), float((rows - mean).square().sum()) / (len(x) - 1)


class Watch(disttrain.Callback):
    """Exact moments before each update that is due, by the updates so far."""

    def __init__(self, x: Tensor, y: Tensor, every: int) -> None:
        self.x, self.y, self.every = x, y, every
        self.found: dict[int, tuple[float, float]] = {}

    def on_start(self, run: Any) -> None:
        self.on_update(run)

    def on_update(self, run: Any) -> None:
        if run.step >= FIRST and run.step % self.every == 0:
            self.found[run.step] = exact(run.model, self.x, self.y)


def one_run(size: int, order: str, seed: int) -> dict[str, Any]:
    """Means over updates FIRST to UPDATES: of what was read, of what was exact, and what the readings are off by, by quarters of
    an epoch."""
    x, y = waves(size, 100 + seed)
    every = 3 if size == SIZES[0] else 9  # prime to the 10 and 40 updates of an epoch, so that every place has its turn
    task = disttrain.Supervised(
        ArrayDataset(x, y), ArrayDataset(x[:64], y[:64]), loss=lambda out, y: F.cross_entropy(out, y, reduction="none")
    )
    recipe = {
        "batch": {"global": BATCH},
        "updates": UPDATES,
        "epochs": None,
        "evaluate": None,
        "seed": seed,
        "data": {"order": order},
        "optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.9},
        "loss": {"label_smoothing": 0.0},
        "log": {"every_steps": 100, "sinks": []},
        "noise_scale": {"every_steps": 1, "slice": 16},
    }
    read: list[tuple[float, float]] = []
    kept = NoiseScale.update

    def note(self: NoiseScale, small: float, big: float, **rest: Any) -> None:
        read.append(noise_scale_moments(small, big, rest["small_batch"], rest["big_batch"], rest["population"]))
        kept(self, small, big, **rest)

    torch.manual_seed(seed)
    watch = Watch(x, y, every)
    with tempfile.TemporaryDirectory() as place, patch.object(NoiseScale, "update", note):
        disttrain.train(
            recipe, task=task, model=network(), run_dir=f"{place}/run", quiet=True, engine="local", callbacks=[watch]
        )
    steps = [step for step in watch.found if step < UPDATES]
    mine, true = np.array([read[step] for step in steps]), np.array([watch.found[step] for step in steps])
    place_in_epoch = np.array(steps) % (size // BATCH) * 4 // (size // BATCH)
    off = (mine - true)[:, 0] / true[:, 0].mean()
    return {
        "read": mine.mean(0).tolist(),
        "exact": true.mean(0).tolist(),
        "off_by_quarter": [float(off[place_in_epoch == q].mean()) for q in range(4)],
    }


def table(path: Path) -> None:
    record = json.loads(path.read_text())
    print(
        "| train set | order | \\|G\\|^2, read / exact | trace | noise scale | exact noise scale | off by quarter of epoch |"
    )
    print("|---|---|---|---|---|---|---|")
    for size in SIZES:
        for order in ORDERS:
            runs = [run for key, run in record.items() if key.startswith(f"{size}, {order},")]
            if not runs:
                continue
            read, true = (np.array([run[what] for run in runs]) for what in ("read", "exact"))
            ratio, scale = read / true, true[:, 1] / true[:, 0]
            quarters = np.mean([run["off_by_quarter"] for run in runs], axis=0)
            cells = [ratio[:, 0], ratio[:, 1], ratio[:, 1] / ratio[:, 0]]
            said = [f"{c.mean():.2f} ({c.min():.2f} to {c.max():.2f})" for c in cells]
            about = f"{scale.min():,.0f} to {scale.max():,.0f} | {', '.join(f'{q:+.2f}' for q in quarters)}"
            print(f"| {size:,} | {order} | {' | '.join(said)} | {about} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--to", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args()
    if not given.table:
        record = json.loads(given.to.read_text()) if given.to.exists() else {}
        for seed in range(given.seeds):
            for size in SIZES:
                for order in ORDERS:
                    if (key := f"{size}, {order}, {seed}") not in record:
                        record[key] = one_run(size, order, seed)
                        given.to.write_text(json.dumps(record, indent=1) + "\n")
                        print(key, record[key], flush=True)
    table(given.to)


if __name__ == "__main__":
    main()
