"""Measured batch sizes on noisy quadratics, each held against its own exact value: the noise scale at a checkpoint's weights,
and the critical batch by branches from that checkpoint. Goes on where it was killed.

    python benchmarks/quadratic.py [--work DIR]

Writes benchmarks/quadratic.json; the table is printed, and stands in benchmarks/quadratic.md.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

import disttrain
from disttrain.checkpoint import list_checkpoints, load_checkpoint
from disttrain.grads import NoiseScale
from disttrain.study.branch import Question, branch
from disttrain.study.exact import SolvedQuadratic, exact_branch
from disttrain.tasks.quadratic import NoisyQuadratic

RESULTS = Path(__file__).with_suffix(".json")
BATCH, STEP, SAMPLES = 16, 1024, 16384
SPECTRA: dict[str, dict[str, Any]] = {
    "power 1, noise with the curvature": {
        "task": {"dimension": 32, "exponent": 1.0, "noise_exponent": 1.0, "data_seed": 1},
        "lr": 0.02,
        "seed": 11,
        "margin": 0.02,
    },
    "power 0.5, equal noise": {
        "task": {"dimension": 64, "exponent": 0.5, "noise": 0.3, "noise_exponent": 0.0, "data_seed": 2},
        "lr": 0.01,
        "seed": 12,
        "margin": 0.045,
    },
}
FACTORS = (2, 3, 4, 6, 8, 12, 16)
FINE = [BATCH * 2**power for power in range(8)] + [BATCH * 3 * 2**power for power in range(6)]


def train(spectrum: dict[str, Any], run_dir: Path) -> None:
    recipe = {
        "task": {"name": "noisy_quadratic", **spectrum["task"]},
        "batch": {"global": BATCH},
        "samples": 4 * SAMPLES,
        "data": {"order": "replacement"},
        "optimizer": {"name": "sgd", "lr": spectrum["lr"], "momentum": 0.0},
        "checkpoint": {"every_steps": STEP, "keep": 10, "best": False},
        "evaluate": None,
        "log": {"sinks": []},
        "seed": spectrum["seed"],
    }
    disttrain.train(recipe, run_dir=run_dir, resume="auto", quiet=True)


def noise_scale(task: NoisyQuadratic, w: np.ndarray, seed: int) -> dict[str, float]:
    """From gradients of batches of 512 samples, each with 16 parts, at fixed weights."""
    samples = task.train_dataset().gather(np.arange(task.sizes().train), 0)[0].double().numpy()  # type: ignore[union-attr]
    meter, generator = NoiseScale(), np.random.default_rng(seed)
    for _ in range(3000):
        drawn = samples[generator.integers(len(samples), size=512)].reshape(16, 32, -1)
        parts = task.curvature * w + drawn.mean(axis=1)
        meter.update((parts**2).sum(1).mean(), (parts.mean(0) ** 2).sum(), small_batch=32, big_batch=512)
    found = meter.estimate()
    return {"measured": float(found.value), "low": float(found.low), "high": float(found.high)}  # type: ignore[arg-type]


def measure(name: str, tool: str, work: Path) -> dict[str, float]:
    spectrum = SPECTRA[name]
    run_dir = work / name.replace(" ", "-").replace(",", "")
    train(spectrum, run_dir)
    task = NoisyQuadratic(**spectrum["task"])
    solved = SolvedQuadratic(task.curvature, task.variance)
    w = load_checkpoint(list_checkpoints(run_dir)[STEP]).model["w"].double().numpy()
    if tool == "noise scale":
        found, exact = noise_scale(task, w, spectrum["seed"]), solved.noise_scale(w)
    else:
        question = Question(FACTORS, str(STEP), f"samples={SAMPLES}", "sqrt", spectrum["margin"], repeats=6)
        crossed = branch(run_dir, question)[0].crossing
        found = {"measured": BATCH * crossed.factor, "low": BATCH * crossed.low, "high": BATCH * crossed.high}
        state = solved.begin(w)
        exact = exact_branch(solved, state, SAMPLES, BATCH, spectrum["lr"], math.sqrt, spectrum["margin"], sorted(FINE))
    return {**found, "exact": exact}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", type=Path, default=Path("runs/quadratic"))
    work = parser.parse_args().work
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in SPECTRA:
        for tool in ("noise scale", "branch"):
            key = f"{name}: {tool}"
            if key not in results:
                results[key] = measure(name, tool, work)
                RESULTS.write_text(json.dumps(results, indent=1) + "\n")
            row = results[key]
            interval = f"{row['low']:,.0f} to {row['high']:,.0f}"
            ratio = row["measured"] / row["exact"]
            print(f"| {name} | {tool} | {row['measured']:,.0f} | {interval} | {row['exact']:,.0f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
