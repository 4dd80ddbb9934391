"""``disttrain study`` on a noisy quadratic against the least samples by the recursion of the expected loss. Goes on where it was
killed.

    python benchmarks/quadratic_study.py [--work DIR]

Writes benchmarks/quadratic_study.json; the table stands in benchmarks/quadratic.md.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

import disttrain
from disttrain.study import report
from disttrain.study.exact import SolvedQuadratic
from disttrain.study.fit import fit_hyperbola
from disttrain.study.settings import Settings
from disttrain.study.study import study
from disttrain.tasks.quadratic import NoisyQuadratic

RESULTS = Path(__file__).with_suffix(".json")
TASK = {"dimension": 256, "exponent": 0.5, "noise": 16.0}
SETTINGS = Settings((16, 64, 256, 1024), "loss", 2.29, seeds=4, budget=20000, every=48)
RECIPE = {
    "task": {"name": "noisy_quadratic", **TASK},
    "batch": {"global": 64},
    "samples": 8192,
    "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.0, "lr_scaling": "linear", "reference_batch": 64},
    "data": {"order": "replacement"},
    "log": {"sinks": []},
    "seed": 1,
}


def least_samples(solved: SolvedQuadratic, start: np.ndarray, batch: int, target: float) -> float:
    """Samples to the target at the best of 60 constant rates, between updates on a line."""
    state, best = solved.begin(start), np.inf
    for lr in np.geomspace(0.05, 3.0, 60):
        seen, before = 0, solved.loss(state)
        for losses in solved.losses(state, batch, float(lr)):
            below = np.flatnonzero(losses <= target)
            if below.size:
                i = int(below[0])
                above = before if i == 0 else losses[i - 1]
                best = min(best, (seen + i + (above - target) / (above - losses[i])) * batch)
                break
            seen, before = seen + len(losses), losses[-1]
            if seen * batch > min(SETTINGS.budget or 0, best) or not np.isfinite(before):
                break
    return float(best)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", type=Path, default=Path("runs/quadratic_study"))
    recipe = disttrain.Recipe.model_validate(RECIPE)
    found = study(recipe, SETTINGS, parser.parse_args().work, done=lambda trial, outcome: None, say=print)
    task = NoisyQuadratic(**TASK)
    solved = SolvedQuadratic(task.curvature, task.variance)
    exact = [least_samples(solved, task.start, b, found.goal.value) for b in SETTINGS.batches]
    through = fit_hyperbola(SETTINGS.batches, [[e * 0.999, e * 1.001] for e in exact], [0.0] * len(exact))
    assert through is not None
    said = {
        "exact_samples": exact,
        "exact_critical_batch": through.critical_batch.value,
        "study": report.as_json(found),
    }
    RESULTS.write_text(json.dumps(said) + "\n", encoding="utf-8")
    for point, samples in zip(found.points, exact, strict=True):
        print(point.batch, report.spread(point.samples), round(samples))
    print(through.critical_batch.value, found.fit and found.fit.critical_batch)


if __name__ == "__main__":
    main()
