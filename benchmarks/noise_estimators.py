"""The noise scale by slices and by norm layers, against the exact one of frozen weights, on a small transformer.

    DISTTRAIN_DATA=... OMP_NUM_THREADS=1 python benchmarks/noise_estimators.py

A transformer is trained on a part of tinyshakespeare. At some stages it is held, the gradient of every training sample is
computed by itself, in float64, and both estimators read the same batches. Nothing is tuned, and the test set is not
read. Stages that ``noise_estimators.json`` has are skipped.
"""

from __future__ import annotations

import json
import os
import tempfile
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from disttrain.config import load_recipe
from disttrain.engine.local import LocalEngine
from disttrain.engine.world import World
from disttrain.grads import NormLayers
from disttrain.training.build import build_run, make_loader
from disttrain.training.loop import applied_update
from disttrain.training.state import Run

JSON = Path(__file__).with_suffix(".json")
CHARACTERS = 60_000
STAGES = (0, 100, 400)
READINGS = 100
NOISE = {"slices": "{every_steps: 1, slice: 8}", "norm layers": "{every_steps: 1, estimator: norm_layers}"}


def make_run(root: str, noise: str) -> Run:
    words = [
        f"task={{name: text, root: {root}, sequence_length: 32}}",
        "model={name: transformer, layers: 2, heads: 4, width: 64}",
        "batch.global=64",
        "optimizer={name: adamw, lr: 0.003}",
        "epochs=100",
        "evaluate=null",
        "loss.label_smoothing=0.0",
        f"noise_scale={noise}",
        "log={sinks: []}",
        "seed=1",
    ]
    return build_run(load_recipe(None, words), LocalEngine(World.alone(torch.device("cpu"))))


def exact(run: Run) -> dict[str, float]:
    """Of the whole train set, for all parameters and for those of the norm layers."""
    data, model = run.task.train_dataset(), run.model.double()
    chosen = {"all": list(model.parameters()), "norm": NormLayers(model, model.parameters()).params}
    sums = {name: [torch.zeros_like(p) for p in params] for name, params in chosen.items()}
    squares, count = dict.fromkeys(chosen, 0.0), len(data)
    for i in range(count):
        model.zero_grad()
        run.task.losses(model, data.gather(np.array([i]), 0)).mean().backward()
        for name, params in chosen.items():
            found = [p.grad for p in params]
            squares[name] += float(torch.stack(torch._foreach_norm(found)).square().sum())
            torch._foreach_add_(sums[name], found)
    model.zero_grad()
    model.float()
    scales = {}
    for name, total in sums.items():
        square = float(torch.stack(torch._foreach_norm(total)).square().sum()) / count**2
        scales[f"exact, {name}"] = (squares[name] - count * square) / (count - 1) / square
    return scales | {"train samples": count}


def read(root: str, noise: str, weights: dict[str, torch.Tensor]) -> dict[str, Any]:
    run = make_run(root, noise)
    run.model.load_state_dict(weights)
    for batch in islice(make_loader(run), READINGS):
        applied_update(run, batch, 0.0)
        run.progress.position = run.progress.position.advanced(batch)
    found = run.methods.noise_scale.estimate.estimate()
    return {"value": found.value, "low": found.low, "high": found.high if found.high < float("inf") else None}


def main() -> None:
    rows = json.loads(JSON.read_text()) if JSON.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        root = f"{folder}/input.txt"
        text = Path(os.environ["DISTTRAIN_DATA"], "tinyshakespeare/input.txt").read_bytes()
        Path(root).write_bytes(text[:CHARACTERS])
        run = make_run(root, "null")
        stream, done = iter(make_loader(run)), 0
        for stage in STAGES:
            for batch in islice(stream, stage - done):
                applied_update(run, batch, 0.003)
                run.progress.position = run.progress.position.advanced(batch)
            done = stage
            if str(stage) in rows:
                continue
            weights = {name: tensor.clone() for name, tensor in run.model.state_dict().items()}
            row = {name: read(root, noise, weights) for name, noise in NOISE.items()}
            rows[str(stage)] = {**row, **exact(run)}
            run.model.load_state_dict(weights)
            JSON.write_text(json.dumps(rows, indent=1) + "\n")
            print(stage, rows[str(stage)], flush=True)


if __name__ == "__main__":
    main()
