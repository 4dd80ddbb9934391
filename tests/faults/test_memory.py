"""Out of memory on one rank: one line, and the next start of the same command is the same run on smaller pieces."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from disttrain.checkpoint import load_latest
from disttrain.verify.verify import max_difference
from tests.harness import digest, disttrain, launch, lines, needs, train

RECIPE = [
    "batch.global=96",
    "epochs=null",
    "updates=12",
    "precision=fp64",
    "model.name=mlp",
    "model.hidden=[40]",
    "optimizer.name=adamw",
    "optimizer.lr=0.003",
    "checkpoint.every_steps=3",
    "evaluate.updates=6",
    "log.every_steps=1",
    "log.tensorboard=false",
]
SHORT = "task.name=tests.faults.short:Short"


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """The weights of the run that has memory enough, in one process."""
    run_dir = tmp_path_factory.mktemp("memory") / "reference"
    train("none", 1, run_dir, *RECIPE).check()
    return weights(run_dir)


def weights(run_dir: Path) -> dict[str, torch.Tensor]:
    return dict(load_latest(run_dir).checkpoint.model)


def starts(run_dir: Path) -> list[tuple[str, int, int]]:
    found = [line for line in lines(run_dir) if line.get("event") in ("start", "resume")]
    return [(line["event"], line["step"], line["micro_batch"]) for line in found]


def ours(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("disttrain: ")]


# One call looks for functional dropout, and DDP rehearses with two.
@pytest.mark.parametrize(
    ("launcher", "after"),
    [("ranks", 7), pytest.param("horovodrun", 5, marks=[pytest.mark.slow, *needs("horovodrun")])],
)
def test_the_same_command_goes_on_with_half(
    launcher: str, after: int, reference: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    """48 samples at once are too many from update 5 on, and so are 24: then 12."""
    run_dir = tmp_path / "run"
    words = [*RECIPE, SHORT, "task.rank=1", "task.most=20", f"task.after={after}", "--resume", "auto"]
    first = train(launcher, 2, run_dir, *words)
    assert first.code != 0
    (failed,) = [line for line in first.err.splitlines() if "rank 1 failed" in line]
    assert "rank 1 failed in update 5: out of memory with 48 samples at once; the same command" in failed
    assert (
        "with --resume auto goes on from the last checkpoint with 24 (OutOfMemoryError: CUDA out of memory." in failed
    )
    assert "in losses" not in first.err, "no traceback of ours"
    second = train(launcher, 2, run_dir, *words)
    assert "at most 24 samples at once, because rank 1 ran out of memory with 48 in update 5" in second.err
    assert "out of memory with 24 samples at once" in second.err
    last = train(launcher, 2, run_dir, *words).check()
    assert "at most 12 samples at once, because rank 1 ran out of memory with 24" in last.err
    assert [micro for _, _, micro in starts(run_dir)] == [48, 24, 12]
    assert max_difference(weights(run_dir), reference)[0] < 1e-10


@pytest.mark.slow
def test_before_the_first_checkpoint_it_begins_with_half(reference: dict[str, torch.Tensor], tmp_path: Path) -> None:
    words = [*RECIPE, SHORT, "task.rank=0", "task.most=30", "task.how=torch", "--resume", "auto"]
    first = train("ranks", 2, tmp_path, *words)
    assert "out of memory with 48 samples at once; the same command with --resume auto" in first.err
    assert "DefaultCPUAllocator" in first.err
    train("ranks", 2, tmp_path, *words).check()
    assert starts(tmp_path) == [("start", 0, 48), ("start", 0, 24)]
    assert max_difference(weights(tmp_path), reference)[0] < 1e-10


def test_auto_is_what_fits_on_the_smallest_rank(reference: dict[str, torch.Tensor], tmp_path: Path) -> None:
    words = [*RECIPE, "batch.per_rank_max=auto", SHORT, "task.rank=1", "task.most=20", "task.how=numpy"]
    train("ranks", 2, tmp_path, *words).check()
    assert starts(tmp_path) == [("start", 0, 12)]
    assert json.loads((tmp_path / "memory/found.json").read_text())["most"] == 12
    assert (
        "batch.per_rank_max auto: at most 12 samples at once fit on each rank"
        in (tmp_path / "log/rank-0.log").read_text()
    )
    assert max_difference(weights(tmp_path), reference)[0] < 1e-10


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["batch.growth={kind: linear, end: 200, samples: 192}"], 25),  # 200 -> 100 -> 50 -> 25
        (["model={name: mlp, hidden: [40], norm: ghost_batch, ghost_size: 8}"], 24),  # 96 -> 48 -> 24
        (["model={name: mlp, hidden: [40], norm: batch}", "batch_norm={kind: sync}", "task.most=96"], 96),
        (["optimizer={name: sgd, lr: 0.1, lr_scaling: adascale, reference_batch: 24}"], 24),
    ],
)
def test_auto_goes_with(words: list[str], found: int, tmp_path: Path) -> None:
    few = [*RECIPE, "updates=2", "evaluate=null", "batch.per_rank_max=auto", SHORT, "task.most=30"]
    train("none", 1, tmp_path, *few, *words).check()
    assert starts(tmp_path) == [("start", 0, found)]


def test_a_search_leaves_no_trace(tmp_path: Path) -> None:
    """Dropout draws from the random states that the search has used too, and batch norm has statistics of its own."""
    words = [
        *RECIPE[:2],
        "updates=2",
        "log.tensorboard=false",
        "model={name: mlp, hidden: [40], norm: batch, dropout: 0.3}",
    ]
    words += ["evaluate=null", "optimizer={name: adamw, lr: 0.003}"]
    for name, most in (("auto", "auto"), ("whole", "null")):
        train("none", 1, tmp_path / name, *words, f"batch.per_rank_max={most}").check()
    assert digest(tmp_path / "auto") == digest(tmp_path / "whole")


@pytest.mark.slow
def test_weak_scaling_goes_on_with_smaller_pieces_too(tmp_path: Path) -> None:
    weak = [*RECIPE, "batch.global=null", "batch.per_rank=48", SHORT, "--resume", "auto"]
    train("none", 1, tmp_path / "whole", *weak).check()
    short = [*weak, "task.most=30", "task.after=8"]
    assert train("none", 1, tmp_path / "run", *short).code == 4
    train("none", 1, tmp_path / "run", *short).check()
    assert starts(tmp_path / "run") == [("start", 0, 48), ("resume", 6, 24)]
    assert max_difference(weights(tmp_path / "run"), weights(tmp_path / "whole"))[0] < 1e-10


def test_nothing_smaller_is_left(tmp_path: Path) -> None:
    result = train("none", 1, tmp_path, *RECIPE, SHORT, "task.most=0", "batch.per_rank_max=1", "batch.global=4")
    assert result.code == 4
    assert "in update 1: out of memory with one sample at once, and nothing smaller is left" in result.err
    assert not (tmp_path / "memory").exists()
    words = [*RECIPE, SHORT, "task.most=0", "batch.per_rank_max=auto"]
    result = train("none", 1, tmp_path / "auto", *words)
    assert result.code == 4
    assert "nothing smaller is left" in result.err
    assert not (tmp_path / "auto").exists()


def test_an_evaluation_names_its_key(tmp_path: Path) -> None:
    result = train("none", 1, tmp_path, *RECIPE, SHORT, "task.evaluating=100")
    assert result.code == 4
    (line,) = ours(result.err)
    assert "failed evaluating after update 6: out of memory with 1000 samples at once: lower evaluate.batch" in line
    assert not (tmp_path / "memory").exists()
    train("none", 1, tmp_path, *RECIPE, SHORT, "task.evaluating=100", "--resume", "auto", "evaluate.batch=100").check()


def test_a_real_limit_is_found(tmp_path: Path) -> None:
    """The whole batch of 240 samples takes more than 480 MiB."""
    words = ["batch.global=240", "batch.per_rank_max=auto", "epochs=null", "updates=1", "evaluate=null"]
    words += ["log.tensorboard=false", "model.name=mlp", "task.name=tests.faults.short:Limited", "task.mib=160"]
    train("none", 1, tmp_path, *words).check()
    ((_, _, found),) = starts(tmp_path)
    assert found in (15, 30, 60)


@pytest.mark.slow
def test_torchrun_starts_again_with_half(tmp_path: Path) -> None:
    words = ["-m", "disttrain", "train", *RECIPE, SHORT, "task.rank=1", "task.most=30", "task.after=6"]
    launch("torchrun", 2, words, cwd=tmp_path, env={"PET_MAX_RESTARTS": "1"}, fresh=True).check()
    (run_dir,) = (tmp_path / "runs").iterdir()
    assert starts(run_dir) == [("start", 0, 48), ("resume", 3, 24)]


def test_show_says_that_auto_is_found_later() -> None:
    assert "auto: found when the run starts" in disttrain("show", "batch.per_rank_max=auto").check().out
