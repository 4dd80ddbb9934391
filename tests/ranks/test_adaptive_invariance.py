"""A batch that follows what is measured: the same decisions and the same run on any cluster, also where it is gone on with."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from disttrain.checkpoint import load_latest
from disttrain.plan.adaptive import DELAY
from disttrain.verify.verify import max_difference
from tests.harness import every_launcher, lines, sample_ids, train

POLICY = "policy: noise_scale, every: 8, level: 0.6, grow_above: 1.2, shrink_below: 0.6, min: 32, max: 512"
RECIPE = [
    f"batch={{global: 128, adaptive: {{{POLICY}}}}}",
    "noise_scale={every_steps: 1, slice: 8}",
    "model={name: mlp, hidden: [16]}",
    "optimizer={name: sgd, lr: 0.2, momentum: 0.9}",
    "epochs=null",
    "samples=6000",
    "schedule={decay: {kind: cosine}}",
    "precision=fp64",
    "evaluate=null",
    "checkpoint={every_steps: 1, keep: 1000}",
    "log.sample_ids=true",
    "log.tensorboard=false",
]
SLOW = pytest.mark.slow


def decisions(run_dir: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in line.items() if k != "time"} for line in lines(run_dir) if line.get("event") == "batch"]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One process, no accumulation, a checkpoint after every update."""
    run_dir = tmp_path_factory.mktemp("alone") / "run"
    train("none", 1, run_dir, *RECIPE).check()
    return run_dir


def check_same(run_dir: Path, alone: Path) -> None:
    assert decisions(run_dir) == decisions(alone)
    assert sample_ids(run_dir) == sample_ids(alone)
    found, expected = (load_latest(path).checkpoint.model for path in (run_dir, alone))
    difference, where = max_difference(found, expected)
    assert difference <= 1e-10, f"{where} differs by {difference:.2e}"


def test_the_reference_shrinks_and_grows(alone: Path) -> None:
    batches = [event["global_batch"] for event in decisions(alone)]
    assert len(batches) >= 2
    assert min(batches) < 128 <= max(batches)
    assert {len(ids) for ids in sample_ids(alone)} >= {128, *batches[:-1]}


@pytest.mark.parametrize(
    ("launcher", "size", "most"),
    [
        ("ranks", 2, 40),
        pytest.param("ranks", 4, 24, marks=SLOW),
        *[pytest.param(*p.values, 2, 24, marks=[*p.marks, SLOW]) for p in every_launcher("horovodrun")],
        *[pytest.param(*p.values, 4, 40, marks=[*p.marks, SLOW]) for p in every_launcher("horovodrun")],
    ],
)
def test_decisions_do_not_depend_on_the_cluster(
    launcher: str, size: int, most: int, alone: Path, tmp_path: Path
) -> None:
    words = [*RECIPE, f"batch.per_rank_max={most}", "checkpoint.every_steps=1000"]
    train(launcher, size, tmp_path / "run", *words).check()
    check_same(tmp_path / "run", alone)


@pytest.mark.parametrize(
    ("launcher", "size", "after"),
    [
        ("ranks", 2, 2),  # between the decision and its effect
        pytest.param("ranks", 4, -1, marks=SLOW),  # within the readings of a decision
        pytest.param("ranks", 3, 0, marks=SLOW),  # right after it
        pytest.param("ranks", 4, DELAY, marks=SLOW),  # right before its effect
        pytest.param("ranks", 2, DELAY + 1, marks=SLOW),  # right after that
        *[pytest.param(*p.values, 2, 1, marks=[*p.marks, SLOW]) for p in every_launcher("horovodrun")],
    ],
)
def test_it_goes_on_elsewhere_from_any_point(launcher: str, size: int, after: int, alone: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(alone, run_dir)
    cut = decisions(alone)[0]["step"] + after
    for path in (run_dir / "checkpoints").iterdir():
        if path.name.startswith("step-") and int(path.name.removeprefix("step-")) > cut:
            shutil.rmtree(path)
    train(launcher, size, run_dir, "--resume").check()
    assert any(line.get("event") == "resume" and line["step"] == cut for line in lines(run_dir))
    check_same(run_dir, alone)
