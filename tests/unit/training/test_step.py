"""One update against torch by hand: the mean over the global batch, whatever the micro-batches."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from training_cases import MakeRun

from disttrain.data.batch import Batch, MicroBatch
from disttrain.errors import DivergedError
from disttrain.grads import clip_norm, global_norm
from disttrain.methods.watch import GradientWatch
from disttrain.precision import FP16, PRECISIONS
from disttrain.training.build import make_loader
from disttrain.training.loop import applied_update
from disttrain.training.state import Run
from disttrain.training.step import update


def by_hand(run: Run, batch: Batch, lr: float) -> nn.Module:
    """The same update in plain torch, on the whole batch at once."""
    model = copy.deepcopy(run.model)
    images, labels = run.task.train_dataset().gather(batch.ids, batch.epoch)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=0.01, nesterov=True)
    loss = F.cross_entropy(model(images.to(run.precision.parameter_dtype)), labels, label_smoothing=0.1)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 0.3)
    optimizer.step()
    return model


WORDS = [
    "optimizer.weight_decay=0.01",
    "optimizer.nesterov=true",
    "gradient.clip_norm=0.3",
    "loss.label_smoothing=0.1",
    "model.hidden=[20]",
    "precision=fp64",
    "batch.global=101",
]


@pytest.mark.parametrize(("per_rank_max", "micro_batches"), [("null", 1), ("40", 3), ("7", 15)])
def test_an_update_is_that_of_the_mean(make_run: MakeRun, per_rank_max: str, micro_batches: int) -> None:
    run = make_run(*WORDS, f"batch.per_rank_max={per_rank_max}")
    batch = next(iter(make_loader(run)))
    expected = by_hand(run, batch, 0.2)
    result = update(run, batch, 0.2)
    for (name, a), b in zip(run.model.named_parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14, msg=name)
    assert result.applied
    assert len(result.parts) == micro_batches


def test_a_borrowed_sample_has_no_effect(make_run: MakeRun) -> None:
    """Weight zero: no gradient, and no trace in batch norm's running statistics."""
    run = make_run("model.norm=batch", "model.hidden=[8]", "optimizer.weight_decay=0.0", "optimizer.momentum=0.0")
    batch = next(iter(make_loader(run)))
    before = {name: t.clone() for name, t in run.model.state_dict().items()}
    borrowed = MicroBatch(tuple(t[:1] for t in batch.micro_batches[0].tensors), batch.ids[:1], 0.0)
    update(run, replace(batch, share=0, micro_batches=[borrowed]), lr=1.0)
    for name, tensor in run.model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert all(m.training for m in run.model.modules())


def test_the_norm_is_that_of_torch() -> None:
    params = [nn.Parameter(torch.randn(n, dtype=torch.float64)) for n in (3, 50, 1)]
    for p in params:
        p.grad = torch.randn_like(p) * 5
    params.append(nn.Parameter(torch.zeros(2)))  # no gradient
    expected = torch.cat([p.grad for p in params if p.grad is not None]).norm()
    torch.testing.assert_close(global_norm(params), expected)
    clip_norm(params, 1.5)
    torch.testing.assert_close(
        torch.cat([p.grad for p in params if p.grad is not None]).norm(), torch.tensor(1.5).double(), rtol=1e-6, atol=0
    )


def test_an_overflow_is_tried_again_on_the_same_batch(make_run: MakeRun) -> None:
    run = make_run("precision=fp16")
    assert isinstance(run.precision, FP16)
    run.precision.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    batch = next(iter(make_loader(run)))
    before = [p.clone() for p in run.params]
    assert not update(run, batch, lr=0.1).applied
    assert all(torch.equal(a, b) for a, b in zip(run.params, before, strict=True))
    assert applied_update(run, batch, 0.1).applied
    assert run.precision.scaler.get_scale() < 2.0**40
    assert run.progress.position.updates == 0, "the loop, not the update, moves the position"


def test_a_batch_that_always_overflows_ends_the_run(make_run: MakeRun) -> None:
    run = make_run("precision=fp16")
    batch = next(iter(make_loader(run)))
    images, labels = batch.micro_batches[0].tensors
    bad = MicroBatch((images * float("inf"), labels), batch.ids, 1.0)
    with pytest.raises(DivergedError, match="40 times"):
        applied_update(run, replace(batch, micro_batches=[bad]), 0.1)


@pytest.mark.parametrize("name", sorted(PRECISIONS.keys() - {"tf32"}))
def test_every_precision_trains(make_run: MakeRun, name: str) -> None:
    run = make_run(f"precision={name}", "batch.global=256")
    batch = next(iter(make_loader(run)))
    losses = [float(applied_update_at(run, batch)) for _ in range(12)]
    assert losses[-1] < 0.6 * losses[0], losses
    assert {p.dtype for p in run.params} == {torch.float64 if name == "fp64" else torch.float32}
    state = run.precision.state_dict()
    PRECISIONS[name](torch.device("cpu")).load_state_dict(state)


def applied_update_at(run: Run, batch: Batch) -> torch.Tensor:
    while not (result := update(run, batch, lr=0.3)).applied:
        pass
    return result.loss()


def test_the_scale_of_the_loss_does_not_matter(make_run: MakeRun) -> None:
    """GradScaler at 1 and at 2^16: clipping and the update see the true gradient."""
    found = []
    for scale in (1.0, 2.0**16):
        run = make_run("precision=fp16", "gradient.clip_norm=0.1", "model.hidden=[16]")
        run.precision.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        stream = iter(make_loader(run))
        for _ in range(5):
            assert update(run, next(stream), lr=0.1).applied
        found.append(torch.cat([p.detach().reshape(-1) for p in run.params]))
    # float16 rounds a scaled gradient otherwise where it would have been subnormal.
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=2e-4)


OPTIMIZERS = ["sgd", "adamw", "rmsprop", "lars", "lamb", "novograd", "muon"]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_overflow_in_the_very_first_step_leaves_nothing_behind(make_run: MakeRun, name: str) -> None:
    """torch's fused SGD would leave momentum buffers that were never written."""
    found = []
    for scale in (2.0**4, 2.0**40):
        run = make_run("precision=fp16", f"optimizer.name={name}", "optimizer.lr=0.01", "model.hidden=[20]")
        run.precision.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        sizes = [p.shape for p in run.params]
        batch = next(iter(make_loader(run)))
        overflows = 0
        for _ in range(3):
            junk = [torch.full(size, 1e30) for size in sizes for _ in range(20)]
            del junk  # so that fresh memory is not zero by chance
            while not update(run, batch, 0.01).applied:
                overflows += 1
        assert (overflows > 0) == (scale > 2.0**20)
        found.append(torch.cat([p.detach().flatten() for p in run.params]))
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-3)


def test_the_watch_names_the_update() -> None:
    watch = GradientWatch()
    watch.check()
    with pytest.raises(ValueError, match="no gradient norm"):
        watch.begin_check()
    for step, norm in enumerate([1.0, float("inf"), 2.0], start=7):
        watch.note(step, torch.tensor(norm))
    with pytest.raises(DivergedError, match="update 8 is inf"):
        watch.check()
    watch.check()
