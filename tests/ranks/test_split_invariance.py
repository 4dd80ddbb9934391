"""The splits of a run and their metrics are the same on any number of ranks, and after a resume in the middle of an epoch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from disttrain.data.selection import held_out
from tests.harness import lines, sample_ids, train

RECIPE = [
    "batch.global=200",
    "batch.per_rank_max=60",
    "epochs=null",
    "updates=12",
    "model.name=mlp",
    "model.hidden=[32]",
    "model.norm=none",
    "optimizer.name=adamw",
    "optimizer.lr=0.003",
    "schedule.decay.kind=constant",
    "precision=fp64",
    "data.validation.fraction=0.15",
    "loss.mixup=0.2",
    "evaluate.updates=4",
    "log.sample_ids=true",
    "log.tensorboard=false",
]
Found = list[tuple[int, str, float, float]]


def evaluated(run_dir: Path) -> Found:
    return [(x["step"], x["split"], x["accuracy"], x["loss"]) for x in lines(run_dir) if "split" in x]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Found, list[list[int]]]:
    """One process."""
    run_dir = tmp_path_factory.mktemp("alone") / "run"
    train("none", 1, run_dir, *RECIPE).check()
    return evaluated(run_dir), sample_ids(run_dir)


def same(run_dir: Path, alone: tuple[Found, list[list[int]]]) -> None:
    found, (expected, ids) = evaluated(run_dir), alone
    assert sample_ids(run_dir) == ids
    assert [line[:3] for line in found] == [line[:3] for line in expected]
    assert [line[3] for line in found] == pytest.approx([line[3] for line in expected], rel=1e-9)


def test_one_process_reads_each_split_when_it_should(alone: tuple[Any, list[list[int]]]) -> None:
    found, ids = alone  # every 800 samples, and the seventh batch of an epoch has 21
    regular = [(step, split) for step in (4, 9, 12) for split in ("train", "validation")]
    assert [line[:2] for line in found] == [*regular, (12, "test")]
    train_part, validation = held_out(1437, 0.15)
    epoch = [number for batch in ids[:7] for number in batch]
    assert len(validation) == 216
    assert sorted(epoch) == sorted(train_part.ids(np.arange(1221)).tolist())


@pytest.mark.parametrize("size", [2, 3])
def test_any_number_of_ranks_reads_the_same(size: int, tmp_path: Path, alone: tuple[Any, list[list[int]]]) -> None:
    train("torchrun", size, tmp_path / "run", *RECIPE).check()
    same(tmp_path / "run", alone)


def test_a_run_stopped_on_three_ranks_and_resumed_on_two_reads_the_same(
    tmp_path: Path, alone: tuple[Any, list[list[int]]]
) -> None:
    train("torchrun", 3, tmp_path / "run", *RECIPE, "updates=5").check()
    train("torchrun", 2, tmp_path / "run", "updates=12", "--resume").check()
    found = evaluated(tmp_path / "run")
    same_steps = [line for line in found if line[0] in (4, 9, 12)]
    expected, ids = alone
    assert sample_ids(tmp_path / "run") == ids
    assert [line[:3] for line in same_steps] == [line[:3] for line in expected]
    assert [line[3] for line in same_steps] == pytest.approx([line[3] for line in expected], rel=1e-9)
