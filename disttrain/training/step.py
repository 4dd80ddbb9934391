"""One update. The order is the same on every engine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from disttrain.data.batch import Batch, MicroBatch
from disttrain.data.tree import a_kind
from disttrain.engine.gather import GlobalBatch
from disttrain.errors import InputError
from disttrain.tasks.terms import Losses
from disttrain.training.state import Run


@dataclass(frozen=True, slots=True)
class Update:
    """What came of one update.

    Attributes:
        parts: of each micro-batch, the losses of its items and the factor that makes their sum a part of the mean.
        grad_norm: 2-norm of the gradient of that mean, before clipping; the same on all ranks. On the device.
        lr: the learning rate, before the factors of parameters of their own.
        applied: whether the weights moved; False after an fp16 overflow, on all ranks alike.
    """

    parts: Sequence[tuple[Tensor, float]]
    grad_norm: Tensor
    lr: float
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
        group["lr"] = lr * group["lr_factor"]
    for param in run.params:
        param.grad = None
    methods.all.begin_update(run.progress.position)
    parts = accumulate(run, batch)
    run.engine.reduce_gradients()
    run.precision.unscale_(run.optimizer)
    methods.all.see_gradient(batch)
    for penalty in methods.penalties:
        penalty(run.params, number)
    grad_norm = methods.clip(run.params)
    for noise in methods.gradient_noise:
        noise(run.params, number)
    applied = run.precision.step(run.optimizer)
    if applied:
        methods.all.end_update(batch)
    return Update(parts, grad_norm, lr, applied)


def accumulate(run: Run, batch: Batch) -> list[tuple[Tensor, float]]:
    """Forward and backward of all micro-batches; gradients travel during the last. See :class:`Update` for ``parts``."""
    methods, items = run.methods, global_items(run, batch)
    masks, number = methods.dropout.masks, run.progress.position.updates + 1
    weigh = methods.sample_weights(batch)
    last = len(batch.micro_batches) - 1
    run.task.global_batch = GlobalBatch(run.engine, batch)
    parts = []
    for i, micro in enumerate(batch):
        factor = micro.weight / items
        with run.engine.accumulating(last=i == last), statistics_of(run.model, micro.weight), masks(number, batch, i):
            terms = run.call(run.task.losses, run.wrapped, micro)
            check_losses(run, micro, terms)
            losses = methods.loss_weights.combine(terms, factor)
            methods.all.begin_backward(last=i == last)
            run.engine.backward(run.precision.scale(weigh(i, losses)), scale=factor)
        methods.all.end_backward(batch, micro)
        parts.append((losses.detach(), factor))
    return parts


def check_losses(run: Run, micro: MicroBatch, losses: Losses) -> None:
    """Refuse what is not one loss for each item: a mean would be divided by the batch once more, silently.

    Raises:
        InputError: the shape is wrong; the message names the task. Losses of a fixed length may be right on a rank that has as
            many samples, so a rank speaks for itself about those.
    """
    samples, each = len(micro.ids), run.task.items_per_sample
    named: object = {"": losses} if isinstance(losses, Tensor) else losses
    if not isinstance(named, Mapping) or not named or not all(isinstance(terms, Tensor) for terms in named.values()):
        raise InputError(
            f"task {run.recipe.task.name}: losses() gave {_kind(losses)}; expected a tensor, or a dict of tensors by name"
        ).on_all_ranks()
    if not any(terms.requires_grad for terms in named.values()):
        raise InputError(
            f"task {run.recipe.task.name}: losses() gave a tensor that does not depend on the model's parameters, or that was "
            "detached from them: there is nothing to train by"
        ).on_all_ranks()
    for name, terms in named.items():
        if terms.dim() and len(terms) == samples and (each is None or terms.numel() == samples * each):
            continue
        items = "one number for each item" if each is None else f"{samples * each} numbers, {each} for each sample"
        if each is None and terms.dim():
            items += ", zero where there is only padding"
        error = InputError(
            f"task {run.recipe.task.name}: losses() gave {name or 'a tensor'} of shape {tuple(terms.shape)} for a micro-batch of "
            f'{samples} samples; expected {items}, not their mean or sum (in torch, reduction="none"), with the samples first'
        )
        alike = run.engine.world.size == 1 or not terms.dim() or len(terms) == samples
        raise error.on_all_ranks() if alike else error
    if each is None and run.progress.position.updates == 0:
        check_padding(run, micro, {name: int(terms.count_nonzero()) for name, terms in named.items()})


def check_padding(run: Run, micro: MicroBatch, losses: Mapping[str, int]) -> None:
    """Refuse more losses that are not zero than there are items: those of padding, which depend on how a batch is cut. Asked in
    the first update only, because a device would have to be waited for.

    Args:
        losses: how many are not zero, by name.
    """
    items = int(run.task.count_items(micro.tensors))
    for name, count in losses.items():
        if count > items:
            error = InputError(
                f"task {run.recipe.task.name}: losses() gave {count} losses {f'of {name} ' * bool(name)}that are not zero for a "
                f"micro-batch that has {items} items by count_items(); set those of padding to zero (in torch, ignore_index), or "
                "sum those of one item"
            )
            raise error.on_all_ranks() if run.engine.world.size == 1 else error


def _kind(losses: object) -> str:
    """What somebody's ``losses()`` gave, in words."""
    if not isinstance(losses, Mapping):
        return a_kind(losses)
    wrong = [f"{name}: {type(terms).__name__}" for name, terms in losses.items() if not isinstance(terms, Tensor)]
    return f"a dict with {', '.join(wrong)}" if wrong else "an empty dict"


def global_items(run: Run, batch: Batch) -> int:
    """Loss items (samples, or tokens) of the global batch: known by arithmetic where every sample has as many.

    Raises:
        InputError: on all ranks: there are none.
    """
    if run.task.items_per_sample is not None:
        return batch.size * run.task.items_per_sample
    mine = sum(int(run.task.count_items(m.tensors)) for m in batch if m.weight)
    items = int(run.engine.all_reduce(torch.tensor(mine, dtype=torch.int64)))
    if items < 1:
        raise InputError(
            f"task {run.recipe.task.name}: count_items() gave {items} in all for a global batch of {batch.size} samples: there "
            "is no loss to take the mean of"
        ).on_all_ranks()
    return items


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
