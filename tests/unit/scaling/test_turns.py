"""Turns measure the training that they are turns of, and leave it as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from disttrain.config import check_recipe
from disttrain.engine.local import LocalEngine
from disttrain.engine.world import World
from disttrain.scaling.measure import measure
from disttrain.scaling.settings import Asked
from disttrain.scaling.stand_ins import PARTS, Clock
from disttrain.scaling.turns import Turns
from disttrain.training.build import build_run
from disttrain.training.loop import batches

RECIPE = {
    "task": {"name": "noisy_quadratic", "dimension": 4, "train_samples": 512},
    "batch": {"global": 16, "per_rank_max": 8, "last": "drop"},
    "samples": 4096,
    "optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.9},
    "gradient": {"clip_norm": 1.0},
    "average": {"kind": "ema", "half_life": {"samples": 256}},
    "noise_scale": {"every_steps": 2},
    "log": {"every_steps": 3},
}
CPU = torch.device("cpu")


@contextmanager
def turns() -> Iterator[Turns]:
    run = build_run(check_recipe(RECIPE), LocalEngine(World.alone(CPU)))
    with closing(batches(run)) as stream:
        yield Turns(run, stream)


def state(made: Turns) -> dict[str, torch.Tensor]:
    momentum = [kept["momentum_buffer"].clone() for kept in made.run.optimizer.state.values()]
    weights = {name: tensor.clone() for name, tensor in made.run.model.state_dict().items()}
    return weights | {str(i): tensor for i, tensor in enumerate(momentum)}


def test_watched_steps_are_the_steps_of_a_training() -> None:
    with turns() as plain, turns() as watched:
        plain.steps(4)
        first, second = watched.watched(2), watched.alone(2)
        assert first.shape == second.shape == (2, len(PARTS))
        assert (first >= 0).all()
        assert plain.run.progress == watched.run.progress
        torch.testing.assert_close(state(watched), state(plain), rtol=0, atol=0)


def test_emptied_steps_leave_no_trace() -> None:
    with turns() as made:
        made.steps(3)
        before, progress = state(made), made.run.progress.to_dict()
        assert made.empty() > 0
        torch.testing.assert_close(state(made), before, rtol=0, atol=0)
        assert made.run.progress.to_dict() == progress


def test_a_clock_gives_every_moment_to_one_part(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter(np.arange(20.0) ** 2)
    monkeypatch.setattr("time.perf_counter", lambda: next(moments))
    clock = Clock(CPU)
    for part in ("between", "data", "compute", "wait", "compute", "data", "optimizer"):
        clock.now_in(part)
    seconds = clock.seconds()
    assert dict(zip(PARTS, seconds[0], strict=True)) == {
        "data": 3,
        "compute": 5 + 9,
        "wait": 7,
        "optimizer": 0,
        "between": 0,
    }
    assert seconds[1].tolist() == [11, 0, 0, 13, 0]


def test_one_rank_is_measured_without_an_exchange(tmp_path: Path) -> None:
    found = measure(check_recipe(RECIPE), LocalEngine(World.alone(CPU)), Asked(2, 0.001, (4, 8)))
    assert found["global_batch"] == 16
    assert found["parameters_bytes"] == 16
    assert found["exchange"] == [{}, {}]
    assert found["passes"].keys() == {4, 8}
    for window in found["windows"]:
        assert window["stragglers"] == 0
        assert window["step"] == pytest.approx((window["before"] + window["after"]) / 2)
        parts = sum(window[name] for name in ("data", "compute", "exchange", "optimizer", "between"))
        assert parts == pytest.approx(window["watched"])
