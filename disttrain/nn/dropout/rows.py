"""Finding dropout whose rows of one sample do not lie next to each other: its masks would depend on how a batch is cut."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor

from disttrain.nn.dropout.context import NOW, Rows
from disttrain.nn.dropout.watch import eager

_SHOWN = 16  # numbers of each row that are compared
_CLOSE = 0.01


def scattered(
    masks: Callable[[], AbstractContextManager[None]],
    forward: Callable[[], object],
    turned: Callable[[], object],
) -> str:
    """The name of the first dropout layer to which rows come that are grouped by what they are of (two views one after the other,
    positions first) and not by sample; empty: none. A model that mixes samples so that nothing can be told is not accused.

    Args:
        masks: around each forward pass.
        forward: of a micro-batch.
        turned: of the same with each sample one place further on, and the last one first.
    """
    with eager(), torch.no_grad(), masks(), noting_rows() as before:
        forward()
    if not before:
        return ""
    with eager(), torch.no_grad(), masks(), noting_rows() as after:
        assert NOW.words is not None
        NOW.words = NOW.words.roll(1)
        turned()
    for (name, blocks, old), (_, _, new) in zip(before, after, strict=False):
        samples, width = len(old) // blocks, old.shape[1]
        by_sample, otherwise = old.view(samples, blocks, width), old.view(blocks, samples, width)
        if not _alike(new, by_sample.roll(1, 0)) and _alike(new, otherwise.roll(1, 1)):
            return name or "(the model itself)"
    return ""


@contextmanager
def noting_rows() -> Iterator[list[Rows]]:
    """Notes of the inputs of dropout layers, in the order of the calls: those that have several rows for each sample."""
    found: list[Rows] = []
    NOW.note = lambda name, blocks, x: found.append((name, blocks, x.detach().flatten(1)[:, :_SHOWN].double().cpu()))
    try:
        yield found
    finally:
        NOW.note = None


def _alike(new: Tensor, old: Tensor) -> bool:
    return bool((new - old.flatten(0, 1)).abs().max() <= _CLOSE * old.abs().max())
