"""The promise holds for what a recipe does not say: what is inside a model, and how many ranks evaluate it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from disttrain.checkpoint import load_latest
from disttrain.verify.verify import max_difference
from tests.harness import digest, launch, lines, sample_ids, train

COMMON = [
    "batch.global=480",
    "epochs=null",
    "updates=12",
    "precision=fp64",
    "optimizer={name: sgd, lr: 0.1, momentum: 0.9}",
    "schedule.decay.kind=constant",
    "evaluate=null",
    "log.sample_ids=true",
    "log.tensorboard=false",
    "seed=5",
]
GHOSTS = {
    "a model": ["model={name: 'tests.own_ghosts:network'}"],
    "the default model of a task": ["task={name: 'tests.own_ghosts:GhostDigits'}", "model=null"],
}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each in one process without accumulation."""
    found = {}
    for name, words in GHOSTS.items():
        found[name] = tmp_path_factory.mktemp("alone") / "run"
        train("none", 1, found[name], *COMMON, *words).check()
    return found


def assert_same_run(run_dir: Path, expected: Path) -> None:
    assert sample_ids(run_dir) == sample_ids(expected)
    ours, theirs = (load_latest(path).checkpoint.model for path in (run_dir, expected))
    assert any("running_var" in name for name in theirs)
    difference, where = max_difference(dict(ours), dict(theirs))
    assert difference <= 1e-10, f"{where} differs by {difference:.2e}"


@pytest.mark.parametrize(("launcher", "size", "per_rank_max"), [("none", 1, 160), ("ranks", 2, 480), ("ranks", 3, 64)])
@pytest.mark.parametrize("kind", GHOSTS)
def test_ghosts_that_the_recipe_does_not_mention(
    kind: str, launcher: str, size: int, per_rank_max: int, alone: dict[str, Path], tmp_path: Path
) -> None:
    train(launcher, size, tmp_path, *COMMON, *GHOSTS[kind], f"batch.per_rank_max={per_rank_max}").check()
    assert_same_run(tmp_path, alone[kind])


@pytest.mark.parametrize("kind", GHOSTS)
def test_they_are_resumed_on_another_number_of_ranks(kind: str, alone: dict[str, Path], tmp_path: Path) -> None:
    words = [*COMMON, *GHOSTS[kind], "batch.per_rank_max=96"]
    train("ranks", 2, tmp_path, *words, "updates=7").check()
    train("ranks", 3, tmp_path, *words, "--resume").check()
    assert_same_run(tmp_path, alone[kind])


@pytest.mark.parametrize("kind", GHOSTS)
def test_they_are_resumed_bit_by_bit(kind: str, tmp_path: Path) -> None:
    words = [*COMMON, *GHOSTS[kind], "batch.per_rank_max=96", "checkpoint.every_steps=7"]
    train("ranks", 2, tmp_path / "whole", *words).check()
    train("ranks", 2, tmp_path / "parts", *words, "updates=7").check()
    train("ranks", 2, tmp_path / "parts", *words, "--resume").check()
    assert digest(tmp_path / "parts") == digest(tmp_path / "whole")


TRAINED = ["epochs=null", "updates=6", "log.tensorboard=false", "evaluate.batch=100"]


@pytest.mark.parametrize(
    ("words", "trained_on", "evaluated_on"),
    [
        # One rank without accumulation has no second micro-batch to measure the noise of.
        (["noise_scale={every_steps: 2}", "batch.global=100"], 2, 1),
        # One ghost cannot be cut into three shares.
        (["model.norm=ghost_batch", "model.ghost_size=64", "batch.global=64"], 1, 3),
    ],
    ids=["noise scale", "ghost as large as the batch"],
)
def test_evaluation_on_ranks_that_could_not_train(
    words: list[str], trained_on: int, evaluated_on: int, tmp_path: Path
) -> None:
    train("none" if trained_on == 1 else "ranks", trained_on, tmp_path, *TRAINED, *words).check()
    said = launch(
        "none" if evaluated_on == 1 else "ranks", evaluated_on, ["-m", "disttrain", "evaluate", str(tmp_path)]
    )
    last = [line for line in lines(tmp_path) if line.get("split") == "test"][-1]
    found = re.search(r"test accuracy +(\d+\.\d+) %", said.check().out)
    assert found, said.text
    assert float(found[1]) == pytest.approx(100 * last["accuracy"], abs=0.005)
