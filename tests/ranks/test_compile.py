"""A compiled run is the run: the same weights as without, on any engine, and the same bits when it is resumed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from disttrain.checkpoint import load_latest
from disttrain.verify.verify import max_difference
from tests.harness import digest, every_launcher, lines, sample_ids, train

RECIPE = [
    "batch.global=200",  # 1,437 digits: the last batch of an epoch has 37
    "batch.per_rank_max=60",
    "epochs=null",
    "updates=20",
    "model={name: mlp, hidden: [600, 600], norm: ghost_batch, ghost_size: 10}",
    "optimizer={name: sgd, lr: 0.02, momentum: 0.9}",
    "schedule.decay.kind=constant",
    "average={kind: ema, half_life: {samples: 500}}",
    "evaluate.updates=10",
    "communication.bucket_mb=1.0",  # two buckets, at which the graph is cut under DDP
    "log.sample_ids=true",
    "log.tensorboard=false",
    "seed=3",
    "checkpoint.every_steps=7",  # the next batch is the short one of the first epoch
    "checkpoint.keep=5",
]
QUICK = "compile={backend: aot_eager}"
BOUND = 1e-5


@pytest.fixture(scope="module")
def eager(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One process, not compiled."""
    run_dir = tmp_path_factory.mktemp("eager") / "run"
    train("none", 1, run_dir, *RECIPE).check()
    return run_dir


def assert_same_run(run_dir: Path, expected: Path) -> None:
    assert sample_ids(run_dir) == sample_ids(expected)
    ours, theirs = (dict(load_latest(path).checkpoint.model) for path in (run_dir, expected))
    assert ours.keys() == theirs.keys()
    difference, where = max_difference(ours, theirs)
    assert difference <= BOUND, f"{where} differs by {difference:.2e}"
    ours, theirs = ([line["loss"] for line in lines(path) if "split" in line] for path in (run_dir, expected))
    assert ours == pytest.approx(theirs, rel=1e-4)


def assert_resumed_to_the_bit(launcher: str, size: int, whole: Path, words: list[str]) -> None:
    """The first checkpoint of ``whole``, and from there on in new processes, which meet the short batch first."""
    parts = shutil.copytree(whole, whole.with_name("parts"))
    for checkpoint in sorted(parts.glob("checkpoints/step-*"))[1:]:
        shutil.rmtree(checkpoint)
    train(launcher, size, parts, *words, "--resume").check()
    assert [line["step"] for line in lines(parts) if line.get("event") == "resume"] == [7]
    assert digest(parts) == digest(whole)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", every_launcher("ranks", "horovodrun"))
def test_compiled_ranks_are_one_process_not_compiled(launcher: str, eager: Path, tmp_path: Path) -> None:
    words = [*RECIPE, QUICK]
    train(launcher, 2, tmp_path / "run", *words).check()
    assert_same_run(tmp_path / "run", eager)
    assert_resumed_to_the_bit(launcher, 2, tmp_path / "run", words)


def test_what_cannot_be_compiled_is_one_message(tmp_path: Path) -> None:
    words = ["model={name: 'tests.uncompilable:Uncompilable'}", QUICK, "log.tensorboard=false"]
    result = train("ranks", 2, tmp_path / "run", *words)
    assert result.code == 2, result.text
    assert result.err.count("disttrain: compile: TorchRuntimeError: ") == 1
    assert "Traceback" not in result.err


OTHERS = {
    # 202 pairs: the last batch of an epoch has two, so that a third rank has none.
    "a loss over the global batch": [
        "task={name: 'examples.contrastive_task:Pairs', train_samples: 202, test_samples: 90}",
        "model=null",
        "loss.label_smoothing=0.0",
        "batch={global: 100}",
        "updates=5",
    ],
    "dropout": ["model.dropout=0.2", "updates=8"],
    "stages": ["stages=[{updates: 4, trainable: ['head.*', 'body.6.*']}, {}]", "updates=8"],
}


@pytest.mark.slow
@pytest.mark.parametrize("words", OTHERS.values(), ids=OTHERS)
def test_what_else_a_recipe_may_ask_for(words: list[str], tmp_path: Path) -> None:
    words = [*RECIPE, *words, "precision=fp64"]
    train("none", 1, tmp_path / "eager", *words).check()
    train("ranks", 3, tmp_path / "run", *words, QUICK).check()
    ours, theirs = (dict(load_latest(tmp_path / name).checkpoint.model) for name in ("run", "eager"))
    difference, where = max_difference(ours, theirs)
    assert difference <= 1e-10, f"{where} differs by {difference:.2e}"


@pytest.mark.slow
@pytest.mark.parametrize("launcher", every_launcher("none", "ranks", "horovodrun"))
def test_inductor(launcher: str, eager: Path, tmp_path: Path) -> None:
    ranks, words = 1 if launcher == "none" else 2, [*RECIPE, "compile={}"]
    train(launcher, ranks, tmp_path / "run", *words).check()
    assert_same_run(tmp_path / "run", eager)
    assert_resumed_to_the_bit(launcher, ranks, tmp_path / "run", words)
