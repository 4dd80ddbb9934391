"""Killed anywhere and resumed: the same bits on the same world, the same run on another one."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

import pytest

from disttrain.checkpoint import load_latest
from disttrain.verify.verify import max_difference
from tests.harness import (
    digest,
    every_launcher,
    finish,
    free_port,
    lines,
    sample_ids,
    start_training,
    train,
    wait_until,
)

RECIPE = [
    "batch.global=200",
    "batch.per_rank_max=60",
    "epochs=null",
    "updates=20",
    "model.name=mlp",
    "model.hidden=[700,64]",  # more than one 1 MiB bucket
    "model.dropout=0.1",
    "optimizer.name=adamw",
    "optimizer.lr=0.003",
    "schedule.decay.kind=constant",
    "checkpoint.every_steps=3",
    "checkpoint.keep=20",
    "evaluate.updates=5",
    "log.every_steps=1",
    "log.sample_ids=true",
    "log.tensorboard=false",
    "communication.bucket_mb=0.5",
]
TIMED = ("samples_per_second", "seconds", "time")


def records(run_dir: Path) -> list[str]:
    """Metric lines but for what a clock says, and for the lines that tell of starts."""
    kept = [line for line in lines(run_dir) if line.get("event") in (None, "samples")]
    return [json.dumps({k: v for k, v in line.items() if k not in TIMED}, sort_keys=True) for line in kept]


def kill_at(launcher: str, size: int, run_dir: Path, step: int, *words: str) -> None:
    """Train, and SIGKILL the whole job once the metrics file shows ``step``."""
    job = start_training(launcher, size, run_dir, *words)

    def is_there() -> bool:
        assert job.poll() is None, finish(job).text
        path = run_dir / "metrics.jsonl"
        return re.search(rf'"step": ?{step},', path.read_text() if path.exists() else "") is not None

    wait_until(is_there, f"the run did not get to step {step}")
    job.kill_all()
    finish(job)


@pytest.mark.parametrize(("launcher", "size", "workers"), [("none", 1, 0), ("torchrun", 2, 2), ("ranks", 4, 0)])
def test_killed_and_resumed_is_bit_identical(launcher: str, size: int, workers: int, tmp_path: Path) -> None:
    words = [*RECIPE, f"data.workers={workers}"]
    train(launcher, size, tmp_path / "whole", *words).check()
    # Killed three times, at steps that are no checkpoints, the second time soon after a resume.
    broken = tmp_path / "broken"
    kill_at(launcher, size, broken, 7, *words)
    kill_at(launcher, size, broken, 8, *words, "--resume")
    kill_at(launcher, size, broken, 17, *words, "--resume")
    train(launcher, size, broken, *words, "--resume").check()
    assert digest(broken) == digest(tmp_path / "whole")
    assert records(broken) == records(tmp_path / "whole")


# Everything a method keeps: running statistics in parts, an average, the optimizer's momentum, and the noise scale.
METHODS = [
    "model.norm=ghost_batch",
    "model.ghost_size=20",
    "optimizer={name: lars, lr: 2.0, momentum: 0.9, momentum_correction: true, weight_decay: 0.001}",
    "schedule={warmup: {kind: linear, updates: 5}, decay: {kind: cosine}}",
    "average={kind: ema, half_life: {samples: 500}}",
    "gradient.noise={kind: annealed, eta: 0.0001}",
    "noise_scale={every_steps: 2, slice: 40, groups: {head: ['head.*']}}",
    "log.every_steps=4",  # some readings wait for a line when the run is saved
    "loss={mixup: 0.4}",
]


@pytest.mark.parametrize("size", [1, 3])
def test_the_methods_state_is_resumed_too(size: int, tmp_path: Path) -> None:
    launcher, words = "none" if size == 1 else "ranks", [*RECIPE, *METHODS]
    train(launcher, size, tmp_path / "whole", *words).check()
    kill_at(launcher, size, tmp_path / "broken", 10, *words)
    train(launcher, size, tmp_path / "broken", "--resume").check()
    assert digest(tmp_path / "broken") == digest(tmp_path / "whole")
    assert records(tmp_path / "broken") == records(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("launcher", every_launcher("horovodrun", "mpirun-horovod", "mpirun"))
@pytest.mark.parametrize("size", [2, 4])
def test_killed_and_resumed_is_bit_identical_elsewhere(launcher: str, size: int, tmp_path: Path) -> None:
    train(launcher, size, tmp_path / "whole", *RECIPE).check()
    kill_at(launcher, size, tmp_path / "broken", 10, *RECIPE)
    train(launcher, size, tmp_path / "broken", *RECIPE, "--resume").check()
    assert digest(tmp_path / "broken") == digest(tmp_path / "whole")
    assert records(tmp_path / "broken") == records(tmp_path / "whole")


@pytest.mark.slow
def test_every_cut_is_bit_identical(tmp_path: Path) -> None:
    """One process, killed at each step in turn."""
    train("none", 1, tmp_path / "whole", *RECIPE).check()
    expected = digest(tmp_path / "whole")
    for step in range(1, 20):
        broken = tmp_path / f"cut-{step}"
        kill_at("none", 1, broken, step, *RECIPE)
        resume = ["--resume"] if list(broken.glob("checkpoints/step-*")) else []
        if not resume:
            broken = tmp_path / f"again-{step}"
        train("none", 1, broken, *RECIPE, *resume).check()
        assert digest(broken) == expected, f"cut at step {step}"
        assert records(broken) == records(tmp_path / "whole"), f"cut at step {step}"


def test_resumed_on_other_worlds_is_the_same_run(tmp_path: Path) -> None:
    """2 -> 4 -> 1 -> 3 ranks, stopped in the middle of epochs, against one process that was never stopped."""
    words = [w for w in RECIPE if "dropout" not in w] + ["precision=fp64", "updates=24"]
    train("none", 1, tmp_path / "one", *words).check()
    for size, until in ((2, 6), (4, 12), (1, 18), (3, 24)):
        resume = ["--resume"] if until > 6 else []
        launcher = "none" if size == 1 else "ranks"
        train(launcher, size, tmp_path / "moved", *words, f"updates={until}", *resume).check()
    assert sample_ids(tmp_path / "moved") == sample_ids(tmp_path / "one")
    a, b = (load_latest(tmp_path / name).checkpoint.model for name in ("moved", "one"))
    difference, where = max_difference(a, b)
    assert difference <= 1e-10, f"{where} differs by {difference:.2e}"


@pytest.mark.parametrize("launcher", every_launcher("horovodrun"))
def test_resumed_on_another_engine_is_the_same_run(launcher: str, tmp_path: Path) -> None:
    words = [w for w in RECIPE if "dropout" not in w] + ["precision=fp64", "updates=12"]
    train("none", 1, tmp_path / "one", *words).check()
    train("torchrun", 2, tmp_path / "moved", *words, "updates=7").check()
    train(launcher, 2, tmp_path / "moved", *words, "--resume", fresh=True).check()
    assert sample_ids(tmp_path / "moved") == sample_ids(tmp_path / "one")
    a, b = (load_latest(tmp_path / name).checkpoint.model for name in ("moved", "one"))
    assert max_difference(a, b)[0] <= 1e-10


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_to_one_rank_stops_all_with_everything_saved(number: signal.Signals, tmp_path: Path) -> None:
    words = [*RECIPE, "updates=100000", "checkpoint.every_steps=null", "evaluate=null", "checkpoint.keep=1"]
    env = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    ranks = [
        start_training("none", 1, tmp_path / "run", *words, env=env | {"RANK": str(r), "LOCAL_RANK": str(r)})
        for r in range(2)
    ]

    def is_under_way() -> bool:
        assert all(r.poll() is None for r in ranks)
        return (tmp_path / "run/metrics.jsonl").exists() and len(lines(tmp_path / "run")) >= 10

    wait_until(is_under_way, "the run does not begin")
    ranks[1].send_signal(number)
    results = [finish(r) for r in ranks]
    assert [r.code for r in results] == [75, 75], results[0].text + results[1].text
    assert "everything is saved" in results[0].err
    last = load_latest(tmp_path / "run").checkpoint
    trained = [line["step"] for line in lines(tmp_path / "run") if "loss" in line]
    assert last.step == trained[-1]
