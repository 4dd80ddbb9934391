"""Exact sums over a data set: every sample once, over all ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn

from disttrain.data.batch import MicroBatch
from disttrain.data.collate import Collate, stack
from disttrain.data.dataset import Dataset
from disttrain.data.evaluation import evaluation_batches
from disttrain.data.selection import Selection
from disttrain.data.tree import Tensors, a_kind
from disttrain.engine.base import Engine
from disttrain.errors import InputError


def totals(
    engine: Engine,
    model: nn.Module,
    dataset: Dataset,
    measure: Callable[[nn.Module, Tensors], Mapping[str, Tensor]],
    *,
    batch: int = 1000,
    chosen: Selection | None = None,
    workers: int = 0,
    collate: Collate = stack,
) -> dict[str, float]:
    """Sums over every sample of ``dataset``, each sample once whatever the number of ranks; the same on all ranks.

    The model is in evaluation mode meanwhile, and no gradients are kept. Divide a sum by a count of your own for a mean.

    Args:
        model: as :meth:`Engine.prepare` gave it, or plain. Batch norm's running statistics are those of the rank: see
            :meth:`Engine.average_batch_norm`.
        measure: gets the module itself and the tensors of a batch, on the device; gives sums over the batch, by name, as
            scalar tensors. They are added up in float64.
        batch: samples at once; the last ones may be fewer.
        chosen: the samples that count; None: all of them.

    Raises:
        InputError: ``measure`` gave something else than sums.

    Example::

        def measure(model, tensors):
            x, y = tensors
            return {"correct": (model(x).argmax(1) == y).sum(), "samples": torch.tensor(len(y))}

        found = disttrain.totals(engine, model, test_set, measure)
        accuracy = found["correct"] / found["samples"]
    """
    world, module = engine.world, engine.unwrap(model)
    batches = evaluation_batches(
        dataset,
        rank=world.rank,
        size=world.size,
        batch=batch,
        chosen=chosen,
        workers=workers,
        device=world.device,
        collate=collate,
    )
    return added_up(engine, module, batches, lambda micro: measure(module, micro.tensors), "measure()")


def added_up(
    engine: Engine,
    model: nn.Module,
    batches: Iterable[MicroBatch],
    measure: Callable[[MicroBatch], Mapping[str, Tensor]],
    what: str,
) -> dict[str, float]:
    """What ``measure`` gives for this rank's ``batches``, added up over all ranks, with ``model`` in evaluation mode.

    Args:
        what: gave the sums, in words for a message.

    Raises:
        InputError: a sum is not one number in a tensor.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    sums: dict[str, Tensor] = {}
    try:
        with torch.inference_mode():
            for micro in batches:
                for name, given in measure(micro).items():
                    total = checked_total(what, name, given)
                    sums[name] = sums[name] + total if name in sums else total
    finally:
        for module, training in modes:  # one by one: the user may have frozen some of them
            module.training = training
    names = sorted(set().union(*engine.all_gather_object(sorted(sums))))
    zero = torch.zeros((), dtype=torch.float64)
    everything = engine.all_reduce(torch.stack([sums.get(name, zero).cpu() for name in names]))
    return dict(zip(names, everything.tolist(), strict=True))


def checked_total(what: str, name: str, total: object) -> Tensor:
    """A sum over a batch, in float64.

    Raises:
        InputError: it is not one number in a tensor; the message says of whom.
    """
    if isinstance(total, Tensor) and total.dim() == 0:
        return total.double()
    raise InputError(f"{what} gave {a_kind(total)} as {name}; expected a scalar tensor, a sum")
