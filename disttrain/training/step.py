"""One update. The order is the same on every engine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from disttrain.data.batch import Batch
from disttrain.training.state import Run


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
    methods, number = run.methods, run.progress.position.updates + 1
    for group in run.optimizer.param_groups:
        group["lr"] = lr
    if run.plan.momentum is not None:
        set_momentum(run.optimizer, run.plan.momentum(run.progress.position.samples))
    for param in run.params:
        param.grad = None
    run.statistics.begin_update()
    run.balance.begin_update()
    if run.noise is not None:
        run.noise.begin_update(number)
    parts = accumulate(run, batch)
    run.engine.reduce_gradients()
    run.precision.unscale_(run.optimizer)
    if run.noise is not None:
        run.noise.end_update(batch)
    for change in methods.before_clip:
        change(run.params, number)
    grad_norm = methods.clip(run.params)
    for change in methods.after_clip:
        change(run.params, number)
    applied = run.precision.step(run.optimizer)
    if applied:
        run.balance.end_update()
        run.statistics.end_update(batch)
        run.average.update(batch.size)
    return Update(parts, grad_norm, applied)


def set_momentum(optimizer: torch.optim.Optimizer, momentum: float) -> None:
    """Momentum, or the first of Adam's betas, of all groups."""
    for group in optimizer.param_groups:
        if "momentum" in group:
            group["momentum"] = momentum
        else:
            group["betas"] = (momentum, *group["betas"][1:])


def accumulate(run: Run, batch: Batch) -> list[tuple[Tensor, float]]:
    """Forward and backward of all micro-batches; gradients travel during the last. See :class:`Update` for ``parts``."""
    items = global_items(run, batch)
    weights = sample_weights(run, batch)
    last = len(batch.micro_batches) - 1
    parts = []
    for i, micro in enumerate(batch):
        with run.engine.accumulating(last=i == last), statistics_of(run.model, micro.weight):
            inputs = run.task.prepare(micro.tensors, run.precision.parameter_dtype)
            with run.precision.forward_context():
                terms = run.task.losses(run.model, inputs)
            losses = run.balance.combine(terms, micro.weight / items)
            if run.noise is not None:
                run.noise.begin_micro_batch()
            weighted = losses if weights is None else weigh(losses, weights[i])
            run.engine.backward(run.precision.scale(weighted), scale=micro.weight / items)
        if run.noise is not None and run.noise.measuring and micro.weight:
            run.noise.end_micro_batch(len(micro.ids), backward_factor(run, len(micro.ids), batch.size))
        parts.append((losses.detach(), micro.weight / items))
    return parts


def backward_factor(run: Run, samples: int, global_batch: int) -> float:
    """What the gradient of the mean loss over ``samples`` samples was multiplied with by the time it reached the parameters."""
    return run.engine.multiplier * run.precision.loss_scale * samples / global_batch


def global_items(run: Run, batch: Batch) -> int:
    """Loss items (samples, or tokens) of the global batch: known by arithmetic where every sample has as many."""
    if run.task.items_per_sample is not None:
        return batch.size * run.task.items_per_sample
    mine = sum(run.task.count_items(m.tensors) for m in batch if m.weight)
    return int(run.engine.all_reduce(torch.tensor(mine, dtype=torch.int64)))


def sample_weights(run: Run, batch: Batch) -> Sequence[Tensor] | None:
    """The weights of each micro-batch's samples, where the recipe draws any."""
    if run.methods.weigh is None or batch.share == 0:
        return None
    return torch.split(run.methods.weigh(batch), [len(micro.ids) for micro in batch])


def weigh(losses: Tensor, weights: Tensor) -> Tensor:
    """``losses``, ``(samples,)`` or ``(samples, items)``, each times the weight of its sample."""
    return losses * weights.to(losses).view(-1, *[1] * (losses.dim() - 1))


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
