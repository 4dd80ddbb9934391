"""The examples run as their docstrings say, on every engine, and end alike."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.harness import ROOT, disttrain, every_launcher, launch


@pytest.fixture(scope="module")
def alone() -> str:
    return norm_of(launch("none", 1, [str(ROOT / "examples/own_loop.py")]).check().out)


def norm_of(out: str) -> str:
    found = re.search(r"accuracy (0\.9\d+|1\.0+), weight norm (\d+\.\d+)", out)
    assert found, out
    return found[2]


@pytest.mark.parametrize("launcher", every_launcher())
def test_a_loop_of_your_own_is_the_same_on_every_engine(launcher: str, alone: str) -> None:
    words = ["horovod"] if launcher == "mpirun-horovod" else []
    result = launch(launcher, 2, [str(ROOT / "examples/own_loop.py"), *words]).check()
    assert float(norm_of(result.out)) == pytest.approx(float(alone), rel=1e-3)
    engine = "horovod" if launcher in ("horovodrun", "mpirun-horovod") else "ddp"
    assert f"{engine}, 2 ranks" in result.out


def test_a_task_of_your_own_trains_from_a_recipe(tmp_path: Path) -> None:
    task = (ROOT / "examples/my_task.py").read_text()
    name = re.search(r"class (\w+)\(", task)
    assert name
    words = ["batch.global=32", "epochs=null", "updates=5", "model=null", "loss.label_smoothing=0"]
    result = disttrain("train", f"task.name=examples.my_task:{name[1]}", *words, "--run-dir", tmp_path / "run")
    assert "test " in result.check().out
