"""One update. The order is the same on every engine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from disttrain.data.batch import Batch
from disttrain.train.state import Run


@dataclass(frozen=True, slots=True)
class Update:
    """What came of one update.

    Attributes:
        parts: of each micro-batch, the losses of its items and the factor that makes their sum a part of the mean.
        grad_norm: 2-norm of the gradient of that mean, before clipping; the same on all ranks. On the device.
        applied: whether the weights moved; False after an fp16 overflow, on all ranks alike.
    """

    parts: Sequence[tuple[Tensor, float]]
    grad_norm: Tensor
    applied: bool

    def loss(self) -> Tensor:
        """This rank's part of the mean loss over the global batch, float64 on the device; the ranks' parts add up."""
        return torch.stack([losses.double().sum() * factor for losses, factor in self.parts]).sum()


def update(run: Run, batch: Batch, lr: float) -> Update:
    """Train on one global batch.

    The loss of each micro-batch is a sum over its items divided by the item count of the whole global batch, so uneven
    ranks, a short last batch and any accumulation give exactly the gradient of the global mean. Whether the gradient is
    finite needs no vote of its own: an infinity on one rank is an infinity on all after the reduction.
    """
    for group in run.optimizer.param_groups:
        group["lr"] = lr
    for param in run.params:
        param.grad = None
    parts = accumulate(run, batch)
    run.engine.reduce_gradients()
    run.precision.unscale_(run.optimizer)
    grad_norm = clip(run.params, run.recipe.gradient.clip_norm)
    return Update(parts, grad_norm, run.precision.step(run.optimizer))


def accumulate(run: Run, batch: Batch) -> list[tuple[Tensor, float]]:
    """Forward and backward of all micro-batches; gradients travel during the last. See :class:`Update` for ``parts``."""
    items = global_items(run, batch)
    last = len(batch.micro_batches) - 1
    parts = []
    for i, micro in enumerate(batch):
        with run.engine.accumulating(last=i == last), statistics_of(run.model, micro.weight):
            inputs = run.task.prepare(micro.tensors, run.precision.parameter_dtype)
            with run.precision.forward_context():
                losses = run.task.losses(run.model, inputs)
            run.engine.backward(run.precision.scale(losses), scale=micro.weight / items)
        parts.append((losses.detach(), micro.weight / items))
    return parts


def global_items(run: Run, batch: Batch) -> int:
    """Loss items (samples, or tokens) of the global batch: known by arithmetic where every sample has as many."""
    if run.task.items_per_sample is not None:
        return batch.size * run.task.items_per_sample
    mine = sum(run.task.count_items(m.tensors) for m in batch if m.weight)
    return int(run.engine.all_reduce(torch.tensor(mine, dtype=torch.int64)))


def clip(params: Sequence[nn.Parameter], max_norm: float | None) -> Tensor:
    """The 2-norm of all gradients together; when ``max_norm`` is given, gradients are scaled down to it in place."""
    grads = [p.grad for p in params if p.grad is not None]
    # torch.nn.utils.get_total_norm, without its sorting by device and dtype: a rank has one device.
    norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)))
    if max_norm is not None:
        nn.utils.clip_grads_with_norm_(params, max_norm, norm)
    return norm


def statistics_of(model: nn.Module, weight: float) -> AbstractContextManager[None]:
    """A borrowed sample (weight 0) takes part in the exchange but must not leave a trace in batch norm's statistics."""
    return nullcontext() if weight else _frozen_batch_norm(model)


@contextmanager
def _frozen_batch_norm(model: nn.Module) -> Iterator[None]:
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._NormBase) and m.training]
    for norm in norms:
        norm.eval()
    try:
        yield
    finally:
        for norm in norms:
            norm.train()
