"""torchrun starts its ranks again after one was killed: the run goes on, in the same directory, to the same bits."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from disttrain.checkpoint import load_latest
from tests.harness import ROOT, environment, launch, lines, sample_ids, train
from tests.ranks.test_resume import RECIPE, records

pytestmark = pytest.mark.timeout(500)  # four jobs of two ranks each, beside whatever else holds the cores
TASK = [*RECIPE, "task.name=tests.faults.broken:Breaking", "task.how=kill"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nothing happened to."""
    run_dir = tmp_path_factory.mktemp("restart") / "whole"
    train("torchrun", 2, run_dir, *TASK, "task.rank=9", "task.at=1", timeout=240).check()
    return run_dir


def bits(value: Any) -> Any:
    """A tree of state with every tensor as its bytes."""
    if isinstance(value, torch.Tensor):
        return (
            str(value.dtype),
            tuple(value.shape),
            value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes(),
        )
    if isinstance(value, dict):
        return {key: bits(item) for key, item in value.items()}
    return [bits(item) for item in value] if isinstance(value, list | tuple) else value


def check_equal(run_dir: Path, whole: Path) -> None:
    ours, theirs = (load_latest(path).checkpoint for path in (run_dir, whole))
    assert bits(ours.model) == bits(theirs.model)
    assert bits(ours.state) == bits(theirs.state)
    assert records(run_dir) == records(whole)
    assert sample_ids(run_dir) == sample_ids(whole)


# Two calls are rehearsals and an update has two: call 17 is in update 8, after the checkpoints of 3 and 6; call 7 in update 3.
@pytest.mark.parametrize(
    ("at", "options", "from_step"), [(17, [], 6), pytest.param(7, ["--resume", "auto"], None, marks=pytest.mark.slow)]
)
def test_a_killed_rank_costs_nothing(
    at: int, options: list[str], from_step: int | None, whole: Path, tmp_path: Path
) -> None:
    words = ["-m", "disttrain", "train", *TASK, "task.rank=1", f"task.at={at}", *options]
    result = launch("torchrun", 2, words, cwd=tmp_path, env={"PET_MAX_RESTARTS": "1"}, fresh=True).check()
    (run_dir,) = (tmp_path / "runs").iterdir()
    assert re.fullmatch("digits" if options else "digits-.{8}", run_dir.name)
    check_equal(run_dir, whole)
    resumed = [line["step"] for line in lines(run_dir) if line.get("event") == "resume"]
    assert resumed == ([] if from_step is None else [from_step])
    assert ("before its first checkpoint: begins anew" in result.err) == (from_step is None)


@pytest.mark.slow
def test_the_start_script_goes_on_too(whole: Path, tmp_path: Path) -> None:
    env = environment({"MAX_RESTARTS": "1", "NPROC_PER_NODE": "2"})
    words = ["train", *TASK, "task.rank=0", "task.at=17", "--run-dir", str(tmp_path / "run")]
    done = subprocess.run(
        [str(ROOT / "launch/torchrun.sh"), *words], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert "--resume auto" in done.stderr
    check_equal(tmp_path / "run", whole)
