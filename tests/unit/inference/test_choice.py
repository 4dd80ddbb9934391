"""Which stored weights a choice leads to."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from disttrain.checkpoint import Checkpoint, save_checkpoint
from disttrain.engine.local import LocalEngine
from disttrain.engine.world import World
from disttrain.errors import CheckpointError, InputError, NoCheckpointError
from disttrain.inference.choice import Choice, Origin, fetch, find
from disttrain.inference.weights import stored_weights


def checkpoint(step: int, best: Any, average: bool = True) -> Checkpoint:
    methods = {"average": {"weights": {"w": torch.full((2,), step + 0.5)}}} if average else {}
    model = {"w": torch.full((2,), float(step)), "running": torch.full((1,), float(step))}
    return Checkpoint(step, model, {"methods": methods, "progress": {"best_step": best}})


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    for step, best in ((10, None), (20, 20), (30, 20)):
        save_checkpoint(tmp_path, checkpoint(step, best), keep=9)
    return tmp_path


def origin(run_dir: Path, choice: Choice) -> Origin:
    return fetch(LocalEngine(World(0, 1, 0, 1, 0, torch.device("cpu"))), run_dir, choice)[1]


@pytest.mark.parametrize(("which", "step"), [("newest", 30), ("best", 20), (10, 10), (30, 30)])
def test_the_checkpoint_that_is_asked_for(which: Any, step: int, run_dir: Path) -> None:
    found = find(run_dir, which)
    assert found.checkpoint.step == step
    assert found.path.name == f"step-{step:08d}"
    assert found.checkpoint.model["w"].tolist() == [step, step]


def test_the_best_is_what_the_newest_sound_one_says(run_dir: Path) -> None:
    (run_dir / "checkpoints/step-00000030/model.safetensors").write_bytes(b"")
    assert find(run_dir).checkpoint.step == 20
    found = find(run_dir, "best")
    assert (found.checkpoint.step, len(found.refused)) == (20, 1)
    about = origin(run_dir, Choice()).about()
    assert (about["updates"], about["weights"]) == (20, "averaged")
    assert "model.safetensors" in about["passed over"]
    assert "passed over" not in origin(run_dir, Choice(10)).about()
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        find(run_dir, 30)


def test_what_is_not_there_is_said(run_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(NoCheckpointError, match="no checkpoint of update 15; there are: 10, 20, 30"):
        find(run_dir, 15)
    shutil.rmtree(run_dir / "checkpoints/step-00000020")
    with pytest.raises(NoCheckpointError, match=r"update 20, which was the best; .* there are: 10, 30"):
        find(run_dir, "best")
    shutil.rmtree(run_dir / "checkpoints/step-00000030")
    with pytest.raises(NoCheckpointError, match="has not been evaluated"):
        find(run_dir, "best")
    with pytest.raises(NoCheckpointError, match="there is no checkpoint"):
        find(tmp_path / "none", "best")


def test_a_best_that_is_no_step_is_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, checkpoint(1, "1"), keep=1)
    with pytest.raises(CheckpointError, match="not what disttrain writes"):
        find(tmp_path, "best")


def test_averages_are_taken_where_there_are_some_unless_told_otherwise(run_dir: Path) -> None:
    assert [origin(run_dir, Choice(average=choice)).averaged for choice in (None, True, False)] == [True, True, False]
    found = find(run_dir).checkpoint
    averaged, raw = (stored_weights(found, averaged=choice) for choice in (True, False))
    assert (averaged["w"][0], raw["w"][0]) == (30.5, 30.0)
    assert averaged["running"] == raw["running"] == 30.0
    plain = dataclasses.replace(found, state={**found.state, "methods": {}})
    assert torch.equal(stored_weights(plain, averaged=True)["w"], raw["w"])


def test_averages_that_are_asked_for_have_to_be_there(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, checkpoint(1, 1, average=False), keep=1)
    assert not origin(tmp_path, Choice()).averaged
    with pytest.raises(InputError, match="keeps no average"):
        origin(tmp_path, Choice(average=True))
