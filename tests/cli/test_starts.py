"""Starts that are refused, and starts that go on: exit codes, one message, and nothing left behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.harness import disttrain, lines

QUICK = [
    "batch.global=400",
    "epochs=null",
    "updates=4",
    "log.tensorboard=false",
    "checkpoint.every_steps=2",
    "evaluate=null",
]


def one_message(text: str, said: str) -> None:
    assert said in text, text
    assert "Traceback" not in text
    assert text.count("disttrain: ") == 1, text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["batch.global=5000"], "the train set has only 1437"),
        (["communication.reduction=adasum"], "adasum combines the gradients of ranks, and there is one"),
        (["early_stopping={metric: acuracy, patience: 1}"], "acuracy"),
    ],
)
def test_a_refusal_leaves_nothing_behind(words: list[str], said: str, tmp_path: Path) -> None:
    result = disttrain(*QUICK, *words, "--run-dir", tmp_path / "deep/run")
    assert result.code == 2, result.text
    one_message(result.err, said)
    assert list(tmp_path.iterdir()) == []


def test_one_run_started_again_and_again(tmp_path: Path) -> None:
    """One directory, `--resume auto` every time: at first, when it is done, with another recipe, and with all of it damaged."""
    run = tmp_path / "run"
    start = ["train", *QUICK, "--resume", "auto", "--run-dir", run]
    disttrain(*start).check()
    disttrain(*start, "updates=6").check()
    assert [line["step"] for line in lines(run) if line.get("event") in ("start", "resume")] == [0, 4]
    before = (run / "metrics.jsonl").read_bytes()

    other = disttrain(*start, "optimizer.lr=0.5")
    assert other.code == 2
    one_message(other.err, "optimizer.lr: 0.2 -> 0.5")

    recipe = (run / "recipe.yaml").read_text()
    (run / "recipe.yaml").write_text(recipe.replace("seed:", "sead:"))
    for words in (
        ["train", "--resume", "--run-dir", run],
        ["evaluate", run],
        ["train", "--resume=auto", "--run-dir", run],
    ):
        wrong = disttrain(*words)
        assert wrong.code == 2, wrong.text
        assert "did you mean seed?" in wrong.err
        assert "Traceback" not in wrong.text
    (run / "recipe.yaml").write_text(recipe)

    for manifest in run.glob("checkpoints/*/MANIFEST.json"):
        manifest.write_text("{}")
    damaged = disttrain(*start)
    assert damaged.code == 3
    one_message(damaged.err, "none of the")
    assert (run / "metrics.jsonl").read_bytes() == before


@pytest.mark.parametrize("name", ["log/rank-0.log", "metrics.jsonl", "recipe.yaml"])
def test_a_link_in_the_run_directory_is_not_followed(name: str, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("precious")
    (tmp_path / "run" / name).parent.mkdir(parents=True)
    (tmp_path / "run" / name).symlink_to(outside)
    result = disttrain(*QUICK, "--run-dir", tmp_path / "run")
    assert result.code == 2, result.text
    one_message(result.err, "is a symbolic link")
    assert outside.read_text() == "precious"


@pytest.mark.parametrize(
    ("words", "env", "said"),
    [
        (["trian", "f.yaml"], {}, "there is no command 'trian'; did you mean train?"),
        (["--resume=never"], {}, "expected --resume or --resume auto"),
        (["--timeout", "0"], {}, "--timeout 0: expected seconds"),
        ([], {"DISTTRAIN_TIMEOUT": "soon"}, "DISTTRAIN_TIMEOUT='soon'"),
        ([], {"LOCAL_RANK": "9", "RANK": "0", "WORLD_SIZE": "1"}, "LOCAL_RANK='9': expected an integer from 0 to 0"),
        (["--run-dir", "a" * 300], {}, "File name too long"),
    ],
)
def test_a_wrong_start_is_one_message(words: list[str], env: dict[str, str], said: str) -> None:
    result = disttrain(*words, env=env)
    assert result.code == 2, result.text
    one_message(result.err, said)
    assert not os.path.lexists("a" * 300)


def test_own_code_that_fails_in_an_update_shows_no_frames_of_ours(tmp_path: Path) -> None:
    words = ["task.name=tests.faults.broken:Breaking", "task.rank=0", "task.at=3"]  # the first call looks for draws
    result = disttrain(*QUICK, *words, "--run-dir", tmp_path / "run")
    assert result.code == 4
    assert "rank 0 failed in update 2: ValueError: planted in call 3" in result.err
    frames = [line for line in result.err.splitlines() if line.lstrip().startswith("File ")]
    assert len(frames) == 1, result.err
    assert "broken.py" in frames[0]
