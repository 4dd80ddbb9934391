"""Ten tasks, each a program for disttrain, Accelerate and Lightning: they run, and ours is never the longest way."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from tests.harness import ROOT, launch

FOUND = importlib.util.spec_from_file_location("lines", ROOT / "benchmarks/lines.py")
assert FOUND is not None
assert FOUND.loader is not None
counted = importlib.util.module_from_spec(FOUND)
sys.modules["lines"] = counted
FOUND.loader.exec_module(counted)

# Several programs begin with the same import; a path makes it theirs.
START = "import runpy, sys; sys.path.insert(0, {folder!r}); runpy.run_path({program!r}, run_name='__main__')"


def run(task: str, library: str, directory: Path, ranks: int = 1, *, fresh: bool = False) -> str:
    folder = ROOT / "examples/ten_tasks"
    starter = directory / "start.py"
    starter.write_text(START.format(folder=str(folder), program=str(folder / task / f"with_{library}.py")))
    env = {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "CUDA_VISIBLE_DEVICES": ""}
    launcher = "none" if ranks == 1 else "ranks"
    return launch(launcher, ranks, [str(starter)], cwd=directory, env=env, fresh=fresh).check().text


QUICK = ("own_model", "resume", "contrastive")


@pytest.mark.parametrize(
    "task", [pytest.param(task, marks=[] if task in QUICK else pytest.mark.slow) for task in counted.TASKS]
)
def test_our_program(task: str, tmp_path: Path) -> None:
    run(task, "disttrain", tmp_path, ranks=2 if task in ("contrastive", "resume") else 1)
    if task == "resume":
        run(task, "disttrain", tmp_path, ranks=1)


@pytest.mark.slow
@pytest.mark.parametrize("library", ["accelerate", "lightning"])
@pytest.mark.parametrize("task", counted.TASKS)
def test_their_program(task: str, library: str, tmp_path: Path) -> None:
    run(task, library, tmp_path, fresh=True)


def test_ours_takes_no_more_lines_and_the_table_is_true() -> None:
    for task in counted.TASKS:
        ours, *theirs = (counted.lines(task, library) for library in counted.LIBRARIES)
        assert ours <= min(theirs), f"{task}: {ours} lines, and {min(theirs)} elsewhere"
    assert counted.table() == (ROOT / "benchmarks/lines.md").read_text()
