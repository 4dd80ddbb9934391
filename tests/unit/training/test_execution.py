"""Compiled, in another memory format, with activations computed again: the same run. What cannot be is refused."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from training_cases import MakeRun

from disttrain.checkpoint import load_latest
from disttrain.errors import InputError
from disttrain.inference.evaluate import evaluate
from disttrain.methods.execution import compiling
from disttrain.methods.shapes import micro_batch_sizes
from disttrain.telemetry import NullSink
from disttrain.training.build import make_loader
from disttrain.training.journal import Journal
from disttrain.training.loop import advance, batches
from disttrain.training.persist import restore, save
from disttrain.training.rehearse import warm_start
from disttrain.training.state import Run
from disttrain.verify.verify import max_difference

GHOSTS = [
    "batch.global=320",  # 1,437 digits: the fifth batch has 157
    "batch.per_rank_max=160",
    "model={name: mlp, hidden: [20], norm: ghost_batch, ghost_size: 20}",
    "optimizer={name: sgd, lr: 0.05, momentum: 0.9}",
    "average={kind: ema, half_life: {samples: 500}}",
    "gradient.clip_norm=1.0",
    "seed=3",
]
COMPILED = "compile={backend: aot_eager}"
CONVNET = "model={name: convnet, widths: [8, 8], norm: batch}"
LAST = "memory_format=channels_last"


def go_on(run: Run, updates: int) -> None:
    stream, journal = batches(run), Journal(run, NullSink())
    for _ in range(updates):
        advance(run, next(stream), journal, NullSink())
    stream.close()


def trained(run: Run, updates: int = 7) -> dict[str, Tensor]:
    """Averaged weights, statistics and metrics after so many updates."""
    go_on(run, updates)
    with run.methods.statistics.complete(), run.methods.average.applied():
        metrics = {name: torch.tensor(value) for name, value in evaluate(run).items()}
        return {**{name: t.clone() for name, t in run.model.state_dict().items()}, **metrics}


@pytest.mark.parametrize(
    "words",
    [
        [COMPILED],
        ["activation_checkpointing=['*']"],
        [COMPILED, "activation_checkpointing=['*']"],
        [CONVNET, LAST],
        pytest.param([CONVNET, LAST, COMPILED, "activation_checkpointing=['*']"], marks=pytest.mark.slow),
        pytest.param(["compile={backend: aot_eager, dynamic: true}"], marks=pytest.mark.slow),
    ],
    ids=" ".join,
)
def test_the_same_run(make_run: MakeRun, words: list[str]) -> None:
    model = [word for word in words if word == CONVNET]
    expected, found = trained(make_run(*GHOSTS, *model)), trained(make_run(*GHOSTS, *words))
    assert list(found) == list(expected)
    difference, where = max_difference(found, expected)
    assert difference <= (1e-5 if LAST in words else 1e-6), where


def test_the_warm_start_leaves_no_trace(make_run: MakeRun, caplog: pytest.LogCaptureFixture) -> None:
    run = make_run(*GHOSTS, COMPILED, "model.dropout=0.3")
    first = next(iter(make_loader(run)))
    before = {name: t.clone() for name, t in run.model.state_dict().items()}
    random = torch.get_rng_state()
    with caplog.at_level(logging.INFO, "disttrain"):
        warm_start(run, first)
    assert "compiled" in caplog.text
    assert all(torch.equal(t, before[name]) for name, t in run.model.state_dict().items())
    assert all(p.grad is None for p in run.params)
    assert torch.equal(torch.get_rng_state(), random)
    assert run.progress.position.updates == 0


def test_what_will_be_seen_is_compiled_before_the_first_update(make_run: MakeRun) -> None:
    from torch._dynamo.utils import counters

    run = make_run(*GHOSTS, COMPILED)
    stream, journal = batches(run), Journal(run, NullSink())
    counters.clear()
    first = next(stream)
    assert micro_batch_sizes(run.plan, 0) == {160, 157}
    compiled = counters["stats"]["unique_graphs"]
    assert compiled == 2
    for _ in range(5):
        advance(run, first, journal, NullSink())
        first = next(stream)
    stream.close()
    assert counters["stats"]["unique_graphs"] == compiled


def test_resumed_to_the_bit(make_run: MakeRun, tmp_path: Path) -> None:
    """LAMB takes norms over what its momentum makes, so that has to lie in memory as it did."""
    words = [*GHOSTS, CONVNET, LAST, "optimizer={name: lamb, lr: 0.01}"]
    whole, parts = make_run(*words), make_run(*words)
    go_on(whole, 4)
    save(whole, tmp_path)
    restore(parts, load_latest(tmp_path).checkpoint)
    go_on(whole, 3)
    go_on(parts, 3)
    for (name, a), b in zip(whole.model.state_dict().items(), parts.model.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_convolutions_work_channels_last(make_run: MakeRun) -> None:
    run = make_run(*GHOSTS, CONVNET, LAST)
    weights = [p for p in run.params if p.dim() == 4 and min(p.shape) > 1]
    assert weights
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in weights)
    seen = []
    convolution = next(m for m in run.model.modules() if isinstance(m, nn.Conv2d) and m.in_channels == 8)
    convolution.register_forward_hook(lambda *found: seen.append(found[2].is_contiguous()))
    go_on(run, 1)
    assert seen
    assert not any(seen)


REFUSED = {
    "a backend that is not there": (
        ["compile={backend: indictor}"],
        "compile.backend is 'indictor'; torch knows .*inductor",
    ),
    "synchronised norm": (
        ["compile={}", "model.norm=batch", "batch_norm={kind: sync}"],
        "compile: the model has synchronised batch norm",
    ),
    "a pattern that matches nothing": (
        ["activation_checkpointing=['blocks.*']"],
        "activation_checkpointing: no module matches 'blocks.*'; there are ",
    ),
    "tf32 on the CPU": (["precision=tf32"], "precision tf32: TF32 is a format of GPUs, and this is the CPU"),
}


@pytest.mark.parametrize(("words", "message"), REFUSED.values(), ids=REFUSED)
def test_refused_before_training(make_run: MakeRun, words: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_run(*words)


def test_what_the_compiler_says_is_one_message(make_run: MakeRun) -> None:
    run = make_run(COMPILED, "model={name: 'tests.uncompilable:Uncompilable'}")
    with pytest.raises(InputError, match=r"^compile: TorchRuntimeError: ") as found:
        go_on(run, 1)
    assert "\n" not in str(found.value)


def test_too_many_shapes_are_refused(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch would go on without compiling, and say so in a warning."""
    monkeypatch.setattr("disttrain.methods.execution.MOST_SHAPES", 1)
    run = make_run(*GHOSTS, COMPILED)
    with pytest.raises(InputError, match=r"compiled for 1 shapes .* compile.dynamic: true"), compiling():
        go_on(run, 5)
