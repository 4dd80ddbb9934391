"""Which samples of which update go through a model at the moment: what its dropout draws from."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from disttrain.nn.dropout.draws import sample_words, word

Rows = tuple[str, int, Tensor]
"""The name of a layer, how many rows of its input belong to each sample, and some numbers of each row."""


class _Now:
    """The micro-batch at hand. One object of the process and not of a thread, because on an accelerator a backward pass
    recomputes activations in threads of its own.

    Attributes:
        words: of its samples; None: no micro-batch is known, and dropout is torch's.
        made: the calls of layers in the order in which they came: (layer, calls of it before).
        seed: what the seed of torch's CPU generator was set to before the first of them.
        note: told of inputs with several rows for each sample, as (name of the layer, rows, input), the samples first.
    """

    words: Tensor | None = None
    made: list[tuple[int, int]]
    calls: Counter[int]
    seed = 0
    note: Callable[[str, int, Tensor], None] | None = None


NOW = _Now()
_IN_TRACE: WeakKeyDictionary[Any, Counter[int]] = WeakKeyDictionary()


@contextmanager
def dropout_masks(
    *, seed: int, update: int, first: int, samples: int, device: torch.device | str = "cpu"
) -> Iterator[None]:
    """Around the forward *and* the backward pass of one micro-batch: dropout that :func:`convert_dropout` has converted draws
    masks that depend on ``seed``, ``update``, a sample's place in the global batch, the layer and the position within the
    sample, and on nothing else.

    A backward pass that recomputes activations (``torch.utils.checkpoint``, of either kind) draws the same masks again. torch's
    CPU generator tells it which: inside, it is in use for that, and afterwards it is as it was before.

    Args:
        update: number of the update; the same when an update is tried again.
        first: place in the global batch of the micro-batch's first sample (``Batch.first``); the others follow it.
        samples: of the micro-batch.
        device: that of the model.

    Raises:
        RuntimeError: inside another one.
    """
    if NOW.words is not None:
        raise RuntimeError("dropout_masks inside dropout_masks: leave the one of the last micro-batch first")
    before = torch.get_rng_state()
    NOW.words = sample_words(seed, update, first, samples, device)
    NOW.made, NOW.calls = [], Counter()
    NOW.seed = word(seed, update, first, 1) % (1 << 62)
    torch.default_generator.manual_seed(NOW.seed)
    try:
        yield
    finally:
        NOW.words = None
        torch.set_rng_state(before)


def layer_number(name: str) -> int:
    """A number for a layer by its name."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little", signed=True)


def layer_word(layer: int) -> int:
    """64 bits for this call of a layer: of its number, and of how often it was called before with this micro-batch."""
    return word(layer, _earlier_calls(layer))


def _earlier_calls(layer: int) -> int:
    """A recomputation has to find the number that the call had in the forward pass. Checkpointing puts back torch's CPU generator
    for it, so the seed of that generator counts the calls; drawing from it does not change the seed.

    Raises:
        RuntimeError: somebody else has set the seed, or a recomputation did not put it back.
    """
    if torch.compiler.is_compiling():
        return _earlier_calls_in_trace(layer)
    at = torch.initial_seed() - NOW.seed
    if at == len(NOW.made):
        if torch._C._current_graph_task_id() != -1:  # as torch.utils.checkpoint itself asks
            raise RuntimeError(
                "activations are recomputed without preserve_rng_state: dropout cannot draw the same masks"
            )
        NOW.made.append((layer, NOW.calls[layer]))
        NOW.calls[layer] += 1
    elif not 0 <= at < len(NOW.made) or NOW.made[at][0] != layer:
        raise RuntimeError("the seed of torch's CPU generator was changed between forward passes of one micro-batch")
    torch.default_generator.manual_seed(NOW.seed + at + 1)
    return NOW.made[at][1]


def _earlier_calls_in_trace(layer: int) -> int:
    """Under torch.compile calls are counted while a graph is traced, and are constants of it."""
    counts = _IN_TRACE.setdefault(torch._guards.TracingContext.get(), Counter())
    counts[layer] += 1
    return counts[layer] - 1


# What torch.compiler.assume_constant_result does; calling that would import the compiler.
_earlier_calls_in_trace._dynamo_marked_constant = True  # type: ignore[attr-defined]
