"""The running angle between updates and weights, against numpy."""

from __future__ import annotations

import numpy as np
import pytest
from training_cases import MakeRun

from disttrain.methods.update_angle import MEMORY
from disttrain.training.build import make_loader
from disttrain.training.loop import batches
from disttrain.training.step import update

WORDS = ["update_angle={every_steps: 2}", "model.hidden=[16]", "batch.global=100", "precision=fp64"]


def flat(run) -> np.ndarray:  # type: ignore[no-untyped-def]
    return np.concatenate([p.detach().numpy().ravel() for p in run.params])


def test_the_angle_is_that_of_numpy(make_run: MakeRun) -> None:
    run = make_run(*WORDS, "optimizer.weight_decay=0.1")
    stream, mean, count = iter(make_loader(run)), 0.0, 0
    for number in range(1, 9):
        before = flat(run)
        batch = next(stream)
        update(run, batch, lr=0.1)
        run.progress.position = run.progress.position.advanced(batch)
        if number % 2 == 0:
            step, count = flat(run) - before, count + 1
            cosine = step @ before / np.linalg.norm(step) / np.linalg.norm(before)
            mean += (cosine - mean) / MEMORY
            expected = np.degrees(np.arccos(mean / (1 - (1 - 1 / MEMORY) ** count)))
            assert run.methods.all.report()()["update_angle"] == pytest.approx(expected, rel=1e-12)
    assert count == 4


def test_pure_decay_points_back(make_run: MakeRun) -> None:
    """With a gradient of almost nothing, decay shrinks the weights: 180 degrees."""
    run = make_run(
        *WORDS, "optimizer={name: sgd, lr: 0.1, momentum: 0.0, weight_decay: 0.5}", "gradient.clip_norm=1e-30"
    )
    for _, batch in zip(range(2), batches(run), strict=False):
        update(run, batch, lr=0.1)
        run.progress.position = run.progress.position.advanced(batch)
    assert run.methods.all.report()()["update_angle"] == pytest.approx(180.0, abs=1e-4)


def test_its_memory_is_part_of_the_state(make_run: MakeRun) -> None:
    run, other = make_run(*WORDS), make_run(*WORDS)
    stream = iter(make_loader(run))
    for _ in range(2):
        batch = next(stream)
        update(run, batch, lr=0.1)
        run.progress.position = run.progress.position.advanced(batch)
    assert other.methods.all.report()() == {}
    other.load_state_dict(run.state_dict())
    assert other.methods.all.report()() == run.methods.all.report()()
    assert 0.0 < run.methods.all.report()()["update_angle"] < 180.0
