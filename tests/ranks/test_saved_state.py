"""What a run remembers, on real ranks: all of it comes back, on as many ranks or on others, or is refused in one line."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from disttrain.checkpoint import load_latest, save_checkpoint
from tests.harness import disttrain, finish, launch, lines, start, train

SCRIPT = Path(__file__).with_name("share_script.py")
SMALL = [
    "batch.global=60",
    "epochs=null",
    "updates=12",
    "model.name=mlp",
    "model.hidden=[300,200]",
    "optimizer={name: adamw, lr: 0.003}",
    "checkpoint={every_steps: 4, keep: 10}",
    "evaluate.updates=6",
    "log={every_steps: 1, tensorboard: false}",
]
# Several buckets, two of them with a matrix that is large enough for PowerSGD.
POWERSGD = ["model.hidden=[700,300,250]", "communication={compression: powersgd, bucket_mb: 0.5}"]
CLOCK = ("samples_per_second", "seconds", "time")


def files(run_dir: Path) -> dict[str, bytes]:
    """The newest checkpoint, to the byte."""
    return {path.name: path.read_bytes() for path in load_latest(run_dir).path.iterdir()}


def records(run_dir: Path) -> list[dict[str, Any]]:
    """Training lines, but for what a clock says."""
    kept = [line for line in lines(run_dir) if "event" not in line and "split" not in line]
    return [{k: v for k, v in line.items() if k not in CLOCK} for line in kept]


def exchange(run_dir: Path) -> list[dict[str, Any]]:
    return [rank["exchange"] for rank in load_latest(run_dir).checkpoint.state["ranks"]]


@pytest.mark.parametrize("size", [2, 3])
def test_powersgd_resumed_on_as_many_ranks_is_bit_identical(size: int, tmp_path: Path) -> None:
    words = [*SMALL, *POWERSGD]
    train("ranks", size, tmp_path / "whole", *words).check()
    train("ranks", size, tmp_path / "broken", *words, "updates=5").check()
    memory = exchange(tmp_path / "broken")
    assert len(memory) == size
    assert len(memory[0]["error"]) >= 2  # as many buckets
    assert sum(bool(p.numel()) for p in memory[0]["p"].values()) >= 2  # compression does happen
    assert all(bool(error.any()) for error in memory[0]["error"].values() if error.numel() > 50_000)
    assert not torch.equal(memory[0]["error"][0], memory[1]["error"][0]) or len(memory[0]["error"]) > 1
    train("ranks", size, tmp_path / "broken", *words, "--resume").check()
    assert files(tmp_path / "broken") == files(tmp_path / "whole")
    assert records(tmp_path / "broken") == records(tmp_path / "whole")


def test_powersgd_on_another_number_of_ranks_starts_from_the_mean_or_says_what_is_dropped(tmp_path: Path) -> None:
    run_dir, words = tmp_path / "run", [*SMALL, *POWERSGD, "checkpoint.every_steps=1"]
    train("ranks", 2, run_dir, *words, "updates=4").check()
    assert "is dropped" not in train("ranks", 3, run_dir, *words, "updates=5", "--resume").check().err
    updates = [rank["updates"] for rank in exchange(run_dir)]
    assert len(updates) == 3
    assert len(set(updates)) == 1
    assert updates[0] > 5  # counted on, so compression did not begin anew
    smaller = train("ranks", 2, run_dir, *words, "updates=6", "communication.bucket_mb=25.0", "--resume").check()
    assert smaller.err.count("has another rank or buckets than before") == 1
    other = train("ranks", 2, run_dir, *words, "updates=7", "communication.powersgd_rank=1", "--resume").check()
    assert other.err.count("has another rank or buckets than before") == 1
    alone = train("none", 1, run_dir, *words, "updates=8", "--resume").check()
    assert "what an earlier exchange had left out of the gradients is dropped" in alone.err
    assert exchange(run_dir) == [{}]
    assert "dropped" not in train("ranks", 2, run_dir, *words, "updates=9", "--resume").check().err


@pytest.mark.parametrize("size", [2, 3])
def test_trees_travel_between_ranks_to_the_bit(size: int) -> None:
    result = launch("torchrun", size, [str(SCRIPT)]).check()
    assert result.out.count("the same to the bit") == size


def test_another_number_of_ranks_evaluates_to_the_run_s_own_numbers(tmp_path: Path) -> None:
    words = [
        *SMALL,
        "batch.per_rank_max=15",
        "noise_scale={every_steps: 2}",
        "average={kind: ema, half_life: {samples: 200}}",
    ]
    train("ranks", 2, tmp_path, *words).check()
    own = [line for line in lines(tmp_path) if line.get("split") == "test"][-1]
    for launcher, size in (("none", 1), ("torchrun", 3)):
        result = launch(launcher, size, ["-m", "disttrain", "evaluate", str(tmp_path)]).check()
        for name in ("loss", "accuracy"):
            shown = re.search(rf"{name}\D+([0-9.]+)", result.text)
            assert shown is not None, result.text
            digits = len(shown[1].split(".")[1])
            expected = own[name] * (100 if name == "accuracy" else 1)  # shown in percent
            assert float(shown[1]) == pytest.approx(expected, abs=0.51 * 10**-digits)


def start_ranks(program: list[str]) -> list[subprocess.Popen[str]]:
    """Two ranks without a launcher."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    env = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    return [start("none", 1, program, env=env | {"RANK": str(rank), "LOCAL_RANK": str(rank)}) for rank in range(2)]


def alter(run_dir: Path, change: Any) -> None:
    """Save the newest checkpoint once more, with whatever ``change`` did to it: its manifest fits."""
    checkpoint = load_latest(run_dir).checkpoint
    change(checkpoint)
    save_checkpoint(run_dir, checkpoint, keep=10)


def _nan(checkpoint: Any) -> None:
    checkpoint.model[next(name for name in checkpoint.model if name.endswith("weight"))].fill_(float("nan"))


def _moment(checkpoint: Any) -> None:
    checkpoint.state["optimizer"]["state"][0]["exp_avg"] = torch.zeros(7)


def _position(checkpoint: Any) -> None:
    checkpoint.state["progress"]["position"]["samples"] = -60


def _ranks(checkpoint: Any) -> None:
    checkpoint.state["ranks"] = [3, 4]


def _random(checkpoint: Any) -> None:
    checkpoint.state["ranks"][-1]["random"]["torch"] = "AAAA"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("finished") / "run"
    train("ranks", 2, run_dir, *SMALL, "updates=4").check()
    return run_dir


@pytest.mark.parametrize("change", [_nan, _moment, _position, _ranks, _random])
def test_a_sealed_checkpoint_that_cannot_be_continued_is_refused_in_one_line(
    change: Any, finished: Path, tmp_path: Path
) -> None:
    run_dir = Path(shutil.copytree(finished, tmp_path / "run"))
    alter(run_dir, change)
    jobs = [("none", 1), ("torchrun", 2)] if change in (_moment, _random) else [("none", 1)]
    for launcher, size in jobs:
        result = train(launcher, size, run_dir, "updates=6", "--resume")
        if change is _random and size == 1:
            result.check()  # another number of ranks does not look at them
            shutil.rmtree(run_dir)
            shutil.copytree(finished, run_dir)
            alter(run_dir, change)
            continue
        if launcher == "none":  # torchrun ends with a traceback of its own
            assert "Traceback" not in result.text
        said = [line for line in result.err.splitlines() if line.startswith("disttrain: ")]
        assert len(said) == 1, result.err
        if launcher == "none":
            assert result.code == 3, result.text
            assert result.err.strip() == said[0]
        else:
            assert re.search(r"exitcode\s*: 3", result.err), result.err
    if change is _nan:
        result = disttrain("evaluate", run_dir)
        assert (result.code, len(result.err.strip().splitlines())) == (3, 1), result.text


def test_killed_in_the_middle_of_saves_on_two_ranks(tmp_path: Path) -> None:
    """SIGKILL to the whole job at the moment that a save is under way, several times; the run ends as if undisturbed."""
    words = [*SMALL, "checkpoint={every_steps: 1, keep: 3}", "updates=30", "model.hidden=[900,900]"]
    train("ranks", 2, tmp_path / "whole", *words).check()
    run_dir = tmp_path / "broken"
    kills = 0
    for at in (2, 9, 16):
        resume = ["--resume"] if at > 2 else []
        program = ["-m", "disttrain", "train", *words, *resume, "--run-dir", str(run_dir)]
        ranks = start_ranks(program)
        deadline = time.monotonic() + 60
        while ranks[0].poll() is None and time.monotonic() < deadline:
            if list(run_dir.glob(f"checkpoints/.tmp-step-{at:08d}-*")):
                kills += 1
                break
        for rank in ranks:
            os.kill(rank.pid, signal.SIGKILL)
            finish(rank, 10)
        assert load_latest(run_dir).checkpoint.step >= at - 1
    assert kills == 3
    train("ranks", 2, run_dir, *words, "--resume").check()
    assert files(run_dir) == files(tmp_path / "whole")
    assert records(run_dir) == records(tmp_path / "whole")
