"""What only a GPU can show. Marked ``gpu``; run with ``pytest -m gpu`` where there is one."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch

from disttrain.verify.verify import max_difference
from tests import harness
from tests.harness import free_port, lines

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
# A process that has CUDA must not have been forked from one that looked for it.
disttrain = partial(harness.disttrain, fresh=True)
QUICK = ["batch.global=500", "epochs=null", "updates=50", "log.tensorboard=false", "model.hidden=[64]"]


def weights(run_dir: Path) -> dict[str, torch.Tensor]:
    from disttrain.checkpoint import load_latest

    return dict(load_latest(run_dir).checkpoint.model)


def test_cuda_and_cpu_agree_in_float64(tmp_path: Path) -> None:
    for device in ("cpu", "cuda"):
        disttrain("train", *QUICK, "precision=fp64", "--device", device, "--run-dir", tmp_path / device).check()
    assert max_difference(weights(tmp_path / "cuda"), weights(tmp_path / "cpu"))[0] <= 1e-10


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16", "fp16"])
def test_every_precision_trains_on_cuda(precision: str, tmp_path: Path) -> None:
    disttrain(
        "train", *QUICK, "updates=200", f"precision={precision}", "--device", "cuda", "--run-dir", tmp_path / "run"
    ).check()
    assert [line for line in lines(tmp_path / "run") if line.get("split")][-1]["accuracy"] > 0.9


@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_compiled_and_not_agree_on_cuda(mode: str, tmp_path: Path) -> None:
    words = [*QUICK, "updates=20", "batch.per_rank_max=200", "--device", "cuda"]
    disttrain("train", *words, "--run-dir", tmp_path / "eager").check()
    disttrain("train", *words, f"compile={{mode: {mode}}}", "--run-dir", tmp_path / "compiled").check()
    assert max_difference(weights(tmp_path / "compiled"), weights(tmp_path / "eager"))[0] <= 1e-5


def test_channels_last_and_recomputed_on_cuda(tmp_path: Path) -> None:
    words = [*QUICK, "model={name: convnet, widths: [8, 8], norm: ghost_batch}", "precision=fp64", "--device", "cuda"]
    more = ["memory_format=channels_last", "activation_checkpointing=['*']"]
    disttrain("train", *words, "--run-dir", tmp_path / "plain").check()
    disttrain("train", *words, *more, "--run-dir", tmp_path / "other").check()
    assert max_difference(weights(tmp_path / "other"), weights(tmp_path / "plain"))[0] <= 1e-10


def test_killed_and_resumed_is_bit_identical_on_cuda(tmp_path: Path) -> None:
    words = [*QUICK, "schedule.decay.kind=constant", "model.dropout=0.1", "--device", "cuda"]
    disttrain("train", *words, "--run-dir", tmp_path / "whole").check()
    disttrain("train", *words, "updates=20", "--run-dir", tmp_path / "parts").check()
    disttrain("train", *words, "--resume", "--run-dir", tmp_path / "parts").check()
    assert max_difference(weights(tmp_path / "parts"), weights(tmp_path / "whole"))[0] == 0.0


def test_a_step_that_logs_nothing_never_waits_for_the_device() -> None:
    from disttrain.config import load_recipe
    from disttrain.engine.select import init
    from disttrain.engine.stop import StopVote
    from disttrain.telemetry import NullSink
    from disttrain.training.build import build_run
    from disttrain.training.journal import Journal
    from disttrain.training.loop import advance, batches

    with init("local", device="cuda") as engine:
        run = build_run(load_recipe(None, ["log.every_steps=1000", "gradient.clip_norm=1.0"]), engine)
        stream, vote, journal = batches(run), StopVote(engine), Journal(run, NullSink())
        for i in range(30):
            if i == 10:
                torch.cuda.set_sync_debug_mode("error")
            advance(run, next(stream), journal, NullSink())
            vote(False)
        with pytest.raises(RuntimeError, match="synchronizing"):
            run.params[0].sum().item()  # what a step that waits would raise
        torch.cuda.set_sync_debug_mode("default")
        journal.flush()


def test_more_ranks_than_gpus_is_refused() -> None:
    many = str(torch.cuda.device_count() + 1)
    env = {
        "RANK": "0",
        "WORLD_SIZE": many,
        "LOCAL_RANK": "0",
        "LOCAL_WORLD_SIZE": many,
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": str(free_port()),
    }
    result = disttrain("train", env=env)
    assert result.code == 2
    assert "visible GPUs" in result.err
