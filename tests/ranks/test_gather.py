"""A loss over the global batch, and several models, on real ranks of each engine; a contrastive task is the same run on any."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from disttrain.checkpoint import load_latest
from disttrain.config import load_recipe
from disttrain.verify.verify import Variant, max_difference, possible, variants
from tests.harness import disttrain, every_launcher, launch, lines, needs, train

SCRIPT = Path(__file__).with_name("gather_script.py")


@pytest.mark.parametrize(
    ("launcher", "size", "engine"),
    [
        ("none", 1, "local"),
        ("ranks", 1, "ddp"),
        ("ranks", 2, "ddp"),
        ("ranks", 4, "ddp"),
        pytest.param("horovodrun", 3, "horovod", marks=needs("horovodrun")),
        pytest.param("mpirun-horovod", 2, "horovod", marks=[*needs("mpirun-horovod"), pytest.mark.slow]),
    ],
)
def test_gradients_are_those_of_one_process(launcher: str, size: int, engine: str) -> None:
    result = launch(launcher, size, [str(SCRIPT), engine]).check()
    assert result.out.count("as one process") == size


# The last batch of an epoch has two samples, so that a third rank has none.
RECIPE: list[Any] = [
    "task={name: 'examples.contrastive_task:Pairs', train_samples: 202, test_samples: 90}",
    "model=null",
    "loss={label_smoothing: 0.0}",
    "batch={global: 100}",
    "epochs=null",
    "updates=8",
    "precision=fp64",
    "optimizer={name: adamw, lr: 0.01}",
    "evaluate={updates: 4, batch: 40}",
    "log.tensorboard=false",
]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("alone") / "run"
    train("none", 1, run_dir, *RECIPE).check()
    return run_dir


def evaluations(run_dir: Path) -> list[tuple[float, float]]:
    return [(line["loss"], line["accuracy"]) for line in lines(run_dir) if line.get("split") == "test"]


@pytest.mark.parametrize(
    ("launcher", "size"),
    [("ranks", 2), ("ranks", 3), *[pytest.param(*p.values, 3, marks=p.marks) for p in every_launcher("horovodrun")]],
)
def test_a_contrastive_task_is_the_same_run_on_any_ranks(launcher: str, size: int, alone: Path, tmp_path: Path) -> None:
    train(launcher, size, tmp_path, *RECIPE).check()
    ours, theirs = (dict(load_latest(path).checkpoint.model) for path in (tmp_path, alone))
    assert "log_scale" in ours
    difference, where = max_difference(ours, theirs)
    assert difference <= 1e-10, f"{where} differs by {difference:.2e}"
    assert [a for _, a in evaluations(tmp_path)] == [a for _, a in evaluations(alone)]
    assert [loss for loss, _ in evaluations(tmp_path)] == pytest.approx(
        [loss for loss, _ in evaluations(alone)], rel=1e-9
    )


def test_cuts_that_the_plan_refuses_are_not_verified() -> None:
    ranks_2 = Variant(2, 1, "ddp")
    assert possible(load_recipe(None, RECIPE[:4]), variants([1, 2], [1, 2], ["ddp"])) == [ranks_2]
    assert len(possible(load_recipe(None, []), variants([1, 2], [1, 2], ["ddp"]))) == 3


@pytest.mark.slow
def test_verify_leaves_out_what_cannot_be_and_says_so() -> None:
    words = [*RECIPE[:4], *RECIPE[-2:]]
    result = disttrain("verify", *words, "--world-sizes", "2", "--accumulations", "1,2", "--updates", "3").check()
    assert "ddp, 2 ranks, accumulation 2             left out: a loss over the global batch" in result.out
    assert "largest difference within 1e-10" in result.out


def test_accumulation_is_refused_with_the_numbers_that_work(tmp_path: Path) -> None:
    words = [*RECIPE[:4], "batch.per_rank_max=30"]
    said = "at most 30 samples do: global 100 on 2 ranks needs batch.per_rank_max of at least 50, or at least 4 ranks"
    shown = disttrain("show", *words, "--world-size", 2)
    assert shown.code == 2
    assert said in shown.err
    trained = train("ranks", 2, tmp_path / "run", *words)
    assert trained.err.count(said) == 1, trained.text
    assert not (tmp_path / "run").exists()
