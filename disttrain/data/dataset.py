"""The three kinds of datasets, and how the samples of one micro-batch are read from each.

A sample is a tree (:mod:`disttrain.data.tree`) of tensors, arrays and numbers; a batch is the same tree of tensors with the
samples first, or what a function of one's own makes of the samples (:mod:`disttrain.data.collate`).

1. :class:`InMemory` answers for many ids at once, in this process. The quickest.
2. :class:`PerSample` answers for one id, and is told the epoch so that its augmentation can be a pure
   function of (seed, epoch, id), for example by :func:`disttrain.data.randomness.uniform`.
3. :class:`MapStyle` is a plain ``torch.utils.data.Dataset``, a Hugging Face ``datasets.Dataset``, or a list. It knows
   nothing of seeds, so before each sample the generators of torch (CPU), ``random`` and ``numpy.random`` are seeded from
   (seed, epoch, id) and put back afterwards: random transforms of other libraries then do not depend on the rank or the
   worker either.
"""

from __future__ import annotations

import hashlib
import traceback
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from disttrain.data.collate import Collate, collated, stack
from disttrain.data.generators import random_state_kept, seed_generators
from disttrain.data.randomness import bits
from disttrain.data.tree import Tensors, named_leaves
from disttrain.errors import DataError

Ids = NDArray[np.int64]


@runtime_checkable
class InMemory(Protocol):
    """A dataset that gathers many samples at once.

    A dataset may have an attribute ``rowwise``: true if row i of what it gathers depends on ``ids[i]`` and the epoch alone,
    as it does not where a batch is padded to its longest sample. Several small requests are then gathered together.
    """

    def __len__(self) -> int: ...

    def gather(self, ids: Ids, epoch: int) -> Tensors:
        """The samples ``ids`` (n,) as they are in ``epoch``: a tree of tensors of shape (n, ...)."""
        ...


@runtime_checkable
class PerSample(Protocol):
    """A dataset that makes one sample, which may depend on the epoch."""

    def __len__(self) -> int: ...

    def sample(self, id: int, epoch: int) -> Any:
        """One sample: a tree of tensors, arrays or numbers."""
        ...


class MapStyle(Protocol):
    """A plain torch dataset."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any:
        """One sample: a tree of tensors, arrays or numbers."""
        ...


Dataset = InMemory | PerSample | MapStyle


def dataset_fingerprint(dataset: Dataset) -> str:
    """Digest of what a dataset consists of, compared between ranks before the first update.

    A dataset that has a ``fingerprint()`` says itself; of others, the size and 8 samples spread over the set, as they are in
    epoch 0, count.
    """
    own = getattr(dataset, "fingerprint", None)
    if own is not None:
        return str(own())
    size = len(dataset)
    if size == 0:
        return "0"
    ids = spread(size)
    found = [dataset.gather(ids, 0)] if isinstance(dataset, InMemory) else samples(dataset, 0, ids, seed=0)
    return digest(found, str(size))


def try_batch(dataset: Dataset, collate: Collate) -> None:
    """Make a batch of 8 samples spread over the set: what is wrong with all of them is then known before training.

    Raises:
        DataError: as :func:`read`.
    """
    if len(dataset) and not isinstance(dataset, InMemory):
        read(dataset, 0, spread(len(dataset)), 0, collate)


def spread(size: int, most: int = 8) -> Ids:
    """Samples spread over a set, at most so many."""
    return np.unique(np.linspace(0, size - 1, most).astype(np.int64)) if size else np.arange(0)


def digest(tree: Any, begin: str = "") -> str:
    """SHA-256 (hex) of ``begin``, and of each leaf: its dtype, shape and contents; text and numbers as they are written. Of what
    is neither and no array (an image, say), what numpy makes of it."""
    found = hashlib.sha256(begin.encode())
    for path, leaf in named_leaves(tree):
        if isinstance(leaf, Tensor):
            found.update(f"{leaf.dtype} {tuple(leaf.shape)};".encode())
            found.update(leaf.contiguous().reshape(-1).view(torch.uint8).numpy().data)
        elif isinstance(leaf, str | bytes | int | float | None):
            found.update(f"{path} {leaf!r};".encode(errors="surrogatepass"))
        else:
            array = np.asarray(leaf)
            found.update(f"{array.dtype} {array.shape};".encode())
            found.update(repr(type(leaf)).encode() if array.dtype.hasobject else array.tobytes())
    return found.hexdigest()


def plain(dataset: Dataset) -> Dataset:
    """The same samples as evaluation is to see them: what the data set's ``plain()`` returns, neither augmented nor mixed. A
    data set without that method is taken as it is, in epoch 0."""
    own = getattr(dataset, "plain", None)
    return own() if callable(own) else dataset


def read(dataset: PerSample | MapStyle, epoch: int, ids: Ids, seed: int, collate: Collate = stack) -> Tensors:
    """The samples ``ids`` (n,) of a dataset that is not in memory, as a batch.

    Raises:
        DataError: a sample could not be made or does not fit the others, or ``collate`` fails; the message names the samples.
    """
    numbers: list[int] = ids.tolist()
    if collate is stack:
        return stack(samples(dataset, epoch, ids, seed), numbers)
    with random_state_kept():
        return collated(collate, samples(dataset, epoch, ids, seed), numbers)


def samples(dataset: PerSample | MapStyle, epoch: int, ids: Ids, seed: int) -> list[Any]:
    """The samples ``ids`` (n,) as the dataset makes them."""
    numbers: list[int] = ids.tolist()
    if isinstance(dataset, PerSample):
        sample = dataset.sample
        return [_guarded(lambda id: sample(id, epoch), id, f"sample {id}", epoch) for id in numbers]
    if reads_rows(dataset):
        together: Any = dataset
        return list(_guarded(together.__getitems__, numbers, f"one of the samples {numbers[0]}, ...", epoch))
    seeds = bits(seed, epoch, ids, stream="sample")[:, 0].tolist()
    made = []
    with random_state_kept():
        for id, number in zip(numbers, seeds, strict=True):
            seed_generators(number)
            made.append(_guarded(dataset.__getitem__, id, f"sample {id}", epoch))
    return made


def reads_rows(dataset: Any) -> bool:
    """Whether ``__getitems__`` may read many samples at once: each must be what it would be by itself, without random draws.

    A dataset says so by ``rowwise``; Hugging Face's are so, unless a function of somebody's (``set_transform``) stands between.
    """
    if not hasattr(dataset, "__getitems__"):
        return False
    if type(dataset).__module__.startswith("datasets."):
        return bool(dataset.format["type"] != "custom")
    return bool(getattr(dataset, "rowwise", False))


def _guarded(make: Callable[[Any], Any], key: Any, what: str, epoch: int) -> Any:
    try:
        return make(key)
    except DataError as error:
        raise DataError(f"{what}: {error}") from error
    except Exception as error:
        # A worker process cannot hand over the traceback itself, and without it nobody finds the mistake.
        raise DataError(
            f"{what} could not be read in epoch {epoch}: {type(error).__name__}: {error}\n{traceback.format_exc()}"
        ) from error
