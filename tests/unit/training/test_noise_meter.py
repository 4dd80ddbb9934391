"""What the noise meter reads, against gradients of each slice and each sample computed by themselves in float64."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from training_cases import MakeRun

from disttrain.data.batch import Batch
from disttrain.data.shares import slice_borders
from disttrain.errors import InputError
from disttrain.grads import NoiseScale
from disttrain.methods.noise import meter
from disttrain.telemetry import NullSink
from disttrain.training.build import make_loader
from disttrain.training.journal import Journal
from disttrain.training.loop import advance, batches
from disttrain.training.rehearse import rehearse
from disttrain.training.state import Run
from disttrain.training.step import update

WORDS = [
    "task.name=digits",
    "batch.global=101",
    "model.name=mlp",
    "model.hidden=[12]",
    "optimizer={name: sgd, lr: 0.1}",
    "precision=fp64",
    "evaluate=null",
    "loss.label_smoothing=0.0",
]
GHOSTS = ["model.norm=ghost_batch", "model.ghost_size=8"]
Told = list[dict[str, Any]]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    """The readings that estimates were given."""
    found: Told = []
    kept = NoiseScale.update

    def note(self: NoiseScale, small: float, big: float, **rest: Any) -> None:
        found.append({"small": small, "big": big, **rest})
        kept(self, small, big, **rest)

    monkeypatch.setattr(NoiseScale, "update", note)
    return found


def gradients(run: Run, batch: Batch, borders: Sequence[int]) -> list[dict[str, torch.Tensor]]:
    """Of the mean loss over [0, size) and over each slice, by name, with the weights as they are and statistics left alone."""
    data = run.task.train_dataset()
    images, labels = data.gather(batch.global_ids, batch.epoch)
    model, found = run.model, []
    buffers = {name: b.clone() for name, b in model.named_buffers()}
    pieces = [(0, batch.size), *pairwise(borders)]
    for lo, hi in pieces:
        model.zero_grad()
        F.cross_entropy(model(images[lo:hi].double()), labels[lo:hi]).backward()
        found.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    model.zero_grad()
    for name, b in model.named_buffers():
        b.copy_(buffers[name])
    return found


def square(gradient: Mapping[str, torch.Tensor], prefix: str = "") -> float:
    return sum(float(g.square().sum()) for name, g in gradient.items() if name.startswith(prefix))


@pytest.mark.parametrize(
    ("words", "borders"),
    [
        (["noise_scale={every_steps: 1, slice: 16}"], [0, 16, 32, 48, 64, 80, 96, 101]),
        (
            ["noise_scale={every_steps: 1, slice: 16}", "batch.per_rank_max=40", "gradient.clip_norm=0.01"],
            [0, 16, 32, 48, 64, 80, 96, 101],
        ),
        (
            ["noise_scale={every_steps: 1, slice: 40}", "loss.penalties=[{parameters: ['*'], l2: 3.0}]"],
            [0, 40, 80, 101],
        ),
        (["noise_scale={every_steps: 1, slice: 16}", *GHOSTS], [0, 16, 32, 48, 64, 80, 101]),
        pytest.param(
            ["noise_scale={every_steps: 1, slice: 50}", "compile={backend: aot_eager}"],
            [0, 50, 100, 101],
            marks=pytest.mark.slow,
        ),
        (["noise_scale={every_steps: 1}", "batch.per_rank_max=40"], [0, 33, 67, 101]),
        (["noise_scale={every_steps: 1, slice: 16, groups: {first: ['body.*']}}", "precision=fp32"], None),
    ],
)
def test_a_reading_is_that_of_each_slice_by_itself(
    make_run: MakeRun, told: Told, words: list[str], borders: list[int] | None
) -> None:
    run = make_run(*WORDS, *words)
    stream = iter(make_loader(run))
    cut = borders or slice_borders(101, 16)
    for number in range(2):
        batch = next(stream)
        whole, *slices = gradients(run, batch, cut) if borders else _double(run, batch, cut)
        sizes = [b - a for a, b in pairwise(cut)]
        assert [len(micro.ids) for micro in batch] == sizes
        update(run, batch, 0.1)
        told.clear()
        run.methods.noise_scale.settle()
        prefixes = ["", "body."] if borders is None else [""]
        for reading, prefix in zip(told, prefixes, strict=True):
            weights = sum(n * n for n in sizes)
            small = sum(n * n * square(g, prefix) for n, g in zip(sizes, slices, strict=True)) / weights
            tolerance = 1e-12 if borders else 1e-5
            # Ghosts of the whole batch are those of the slices, so its gradient is the mean of theirs.
            mean = {k: sum(n * g[k] for n, g in zip(sizes, slices, strict=True)) / 101 for k in whole}
            assert reading["small"] == pytest.approx(small, rel=tolerance)
            assert reading["big"] == pytest.approx(square(mean, prefix), rel=tolerance)
            assert (reading["small_batch"], reading["big_batch"]) == (weights / 101, 101)
            assert (reading["population"], reading["epoch"]) == (1437, 0)
        assert run.methods.noise_scale.estimate.count == number + 1


def test_the_gradient_is_not_read_again_for_the_whole(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    monkeypatch.setattr(meter, "square_norm", lambda grads: read.append(len(grads)) or torch.zeros(()))
    for words in ([], ["noise_scale.groups={head: ['head.*']}"], ["loss.penalties=[{parameters: ['*'], l2: 3.0}]"]):
        run = make_run(*WORDS, "noise_scale={every_steps: 1, slice: 40}", *words)
        update(run, next(iter(make_loader(run))), 0.1)
    assert read == [2, 4]  # a group's, and all of them where a penalty comes before the clip


def _double(run: Run, batch: Batch, cut: Sequence[int]) -> list[dict[str, torch.Tensor]]:
    run.model.double()
    found = gradients(run, batch, cut)
    run.model.float()
    return found


def hooks(run: Run) -> int:
    layers = sum(len(m._forward_hooks) for m in run.model.modules())
    return layers + sum(len(p._backward_hooks or ()) for p in run.params)


@pytest.mark.parametrize("estimator", ["gradients", "norm_layers"])
def test_nothing_is_on_the_model_on_other_updates(make_run: MakeRun, told: Told, estimator: str) -> None:
    run = make_run(
        *WORDS,
        "model.norm=layer",
        "model.hidden=[200]",
        f"noise_scale={{every_steps: 3, estimator: {estimator}}}",
        "batch.per_rank_max=51",
    )
    stream = iter(make_loader(run))
    rehearse(run, next(stream))
    found = []
    for _ in range(6):
        batch = next(stream)
        assert len(batch.micro_batches) == 2
        update(run, batch, 0.1)
        found.append(hooks(run) > 0)
        run.progress.position = run.progress.position.advanced(batch)
    assert found == [False, False, True, False, False, True]
    run.methods.all.release()
    assert hooks(run) == 0
    assert told == []  # nothing has asked
    assert run.methods.noise_scale.estimate.count == 2


def test_slices_are_cut_on_measuring_updates_only_and_the_run_is_the_same(make_run: MakeRun) -> None:
    ends = []
    for noise in ("null", "{every_steps: 2, slice: 24}"):
        run = make_run(*WORDS, *GHOSTS, "batch.per_rank_max=48", f"noise_scale={noise}", "batch.global=200")
        found = [next(stream) for stream in [iter(make_loader(run))] for _ in range(9)]
        sizes = [[len(micro.ids) for micro in batch] for batch in found]
        if noise != "null":
            assert sizes[1] == [24] * 8 + [8]
            assert sizes[7] == [24, 13]  # the last batch of the epoch, and its remainder of ghosts
            assert all(max(s) > 24 for s in sizes[::2])
        for batch in found:
            update(run, batch, 0.1)
            run.progress.position = run.progress.position.advanced(batch)
        ends.append(run.model.state_dict())
    for name, tensor in ends[0].items():
        torch.testing.assert_close(tensor, ends[1][name], rtol=1e-12, atol=1e-13)


def test_lines_say_it_with_a_band_or_a_reason(make_run: MakeRun) -> None:
    run = make_run(*WORDS, "noise_scale={every_steps: 1, slice: 10, groups: {head: ['head.*']}}", "log.every_steps=4")
    lines: list[dict[str, Any]] = []

    class Sink(NullSink):
        def log(self, record: Mapping[str, object]) -> None:
            lines.append(dict(record))

    journal = Journal(run, Sink())
    for batch in (next(stream) for stream in [batches(run)] for _ in range(12)):
        advance(run, batch, journal, Sink())
    journal.flush()
    assert [line["step"] for line in lines] == [4, 8, 12]
    assert lines[0]["noise_scale_reason"]
    assert lines[0]["noise_scale_high"] is None
    for key in ("noise_scale", "noise_scale/head"):
        last = lines[-1]
        assert last[key] is not None
        assert last[f"{key}_low"] <= last[key]
        assert (last[f"{key}_high"] is None) == (f"{key}_reason" in last)
    said = run.methods.noise_scale.summary()
    assert said["noise_scale"].startswith("noise scale ")
    assert said["noise_scale/head"].startswith("noise scale of head ")
    assert "noise_scale_note" not in said


def test_overflows_are_passed_over_and_counted(make_run: MakeRun, told: Told) -> None:
    run = make_run(*WORDS, "noise_scale={every_steps: 1, slice: 10}", "precision=fp32")
    measures = run.methods.noise_scale
    assert isinstance(measures, meter.PieceMeter)
    batch = next(iter(make_loader(run)))
    hook = run.params[0].register_hook(lambda grad: grad * float("inf"))  # type: ignore[no-untyped-call]
    measures.begin_update(run.progress.position)
    update(run, batch, 0.0)
    hook.remove()
    assert (measures.estimate.count, measures.passed_over) == (0, 1)
    assert "1 of the readings was not finite and is left out" in measures.said()["noise_scale"]


def test_the_norm_layers_are_a_proxy_and_say_so(make_run: MakeRun, told: Told) -> None:
    words = ["noise_scale={every_steps: 1, estimator: norm_layers}", "optimizer={name: adamw, lr: 0.01}"]
    run = make_run(*WORDS, "model.norm=layer", *words)
    batch = next(iter(make_loader(run)))
    norms = {n for n, m in run.model.named_modules() if isinstance(m, torch.nn.LayerNorm)}
    whole, *samples = gradients(run, batch, range(102))
    chosen = [{k: g[k] for k in g if k.rsplit(".", 1)[0] in norms} for g in (whole, *samples)]
    update(run, batch, 0.1)
    record = run.methods.all.report()()
    assert record["noise_scale_norm_layers_reason"] == "there are no readings yet"  # no line has made them travel
    said = run.methods.noise_scale.summary()
    (reading,) = told
    assert reading["small"] == pytest.approx(sum(map(square, chosen[1:])) / 101, rel=1e-10)
    assert reading["big"] == pytest.approx(square(chosen[0]), rel=1e-10)
    assert (reading["small_batch"], reading["big_batch"]) == (1.0, 101)
    assert said["noise_scale_norm_layers"].startswith("noise scale norm layers (a proxy)")
    assert "a guide only: adamw" in said["noise_scale_note"]
    assert "noise_scale" not in record


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["noise_scale={slice: 12}", *GHOSTS], "whole ghosts of 8 samples: choose 8 or 16"),
        (
            ["noise_scale={slice: 32}", "batch.per_rank_max=20"],
            "at most 20 samples go through the model at once: choose a slice of",
        ),
        (["noise_scale={slice: 101}"], "has 1 such slices, and at least 2 are compared: choose a slice of at most 50"),
        (["noise_scale={}"], "set noise_scale.slice to 50 or less"),
        (
            ["noise_scale={slice: 8, groups: {x: ['trunk.*']}}"],
            r"noise_scale\.groups\.x: no measured parameter matches 'trunk",
        ),
        (["noise_scale={estimator: norm_layers}"], "no trained parameter is one of a LayerNorm or RMSNorm"),
        (["noise_scale={slice: 8}", "model.norm=batch", "batch_norm={kind: sync}"], "which a slice is not"),
    ],
)
def test_what_is_refused(make_run: MakeRun, words: list[str], said: str) -> None:
    make_run(*WORDS, "noise_scale={slice: 60}")  # 60 and 41
    with pytest.raises(InputError, match=said):
        make_run(*WORDS, *words)
