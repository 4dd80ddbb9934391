"""The three kinds of datasets, and how the samples of one micro-batch are read from each.

1. :class:`InMemory` answers for many ids at once, in this process. The quickest.
2. :class:`PerSample` answers for one id, and is told the epoch so that its augmentation can be a pure
   function of (seed, epoch, id), for example by :func:`disttrain.data.randomness.uniform`.
3. :class:`MapStyle` is a plain ``torch.utils.data.Dataset``. It knows nothing of seeds, so before each sample
   the generators of torch (CPU), ``random`` and ``numpy.random`` are seeded from (seed, epoch, id) and put
   back
   afterwards: random transforms of other libraries then do not depend on the rank or the worker either.
"""

from __future__ import annotations

import hashlib
import random
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from disttrain.data.randomness import bits
from disttrain.errors import DataError

Ids = NDArray[np.int64]
Tensors = tuple[Tensor, ...]


@runtime_checkable
class InMemory(Protocol):
    """A dataset that gathers many samples at once.

    A dataset may have an attribute ``rowwise``: true if row i of what it gathers depends on ``ids[i]`` and the epoch alone,
    as it does not where a batch is padded to its longest sample. Several small requests are then gathered together.
    """

    def __len__(self) -> int: ...

    def gather(self, ids: Ids, epoch: int) -> Tensors:
        """The samples ``ids`` (n,) as they are in ``epoch``: tensors of shape (n, ...)."""
        ...


@runtime_checkable
class PerSample(Protocol):
    """A dataset that makes one sample, which may depend on the epoch."""

    def __len__(self) -> int: ...

    def sample(self, id: int, epoch: int) -> Sequence[Any]:
        """One sample: a tuple of tensors, arrays or numbers."""
        ...


class MapStyle(Protocol):
    """A plain torch dataset."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any:
        """One sample: a tuple of tensors, arrays or numbers."""
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
    ids = np.unique(np.linspace(0, size - 1, 8).astype(np.int64))
    tensors = dataset.gather(ids, 0) if isinstance(dataset, InMemory) else read(dataset, 0, ids, seed=0)
    return tensors_digest(tensors, str(size))


def tensors_digest(tensors: Sequence[Tensor], begin: str = "") -> str:
    """SHA-256 (hex) of ``begin``, and of each tensor's dtype, shape and contents."""
    digest = hashlib.sha256(begin.encode())
    for tensor in tensors:
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)};".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def plain(dataset: Dataset) -> Dataset:
    """The same samples as evaluation is to see them: what the data set's ``plain()`` returns, neither augmented nor mixed. A
    data set without that method is taken as it is, in epoch 0."""
    own = getattr(dataset, "plain", None)
    return own() if callable(own) else dataset


def read(dataset: PerSample | MapStyle, epoch: int, ids: Ids, seed: int) -> Tensors:
    """The samples ``ids`` (n,) of a dataset that is not in memory, stacked: tensors of shape (n, ...).

    Raises:
        DataError: a sample could not be made or does not fit the others; the message names its id.
    """
    if isinstance(dataset, PerSample):
        sample = dataset.sample
        samples = [_guarded(lambda id: sample(id, epoch), id, epoch) for id in ids.tolist()]
    else:
        seeds = bits(seed, epoch, ids, stream="sample")[:, 0].tolist()
        samples = []
        with _random_state_kept():
            for id, number in zip(ids.tolist(), seeds, strict=True):
                torch.default_generator.manual_seed(number)
                random.seed(number)
                np.random.seed(number & 0xFFFFFFFF)
                samples.append(_guarded(dataset.__getitem__, id, epoch))
    return _stack(samples, ids)


def _guarded(make: Callable[[int], Any], id: int, epoch: int) -> Sequence[Any]:
    try:
        sample = make(id)
    except DataError as error:
        raise DataError(f"sample {id}: {error}") from error
    except Exception as error:
        # A worker process cannot hand over the traceback itself, and without it nobody finds the mistake.
        raise DataError(
            f"sample {id} could not be read in epoch {epoch}: {type(error).__name__}: {error}\n{traceback.format_exc()}"
        ) from error
    if not isinstance(sample, tuple | list):
        raise DataError(f"sample {id} is a {type(sample).__name__}; expected a tuple of tensors, arrays or numbers")
    return sample


@contextmanager
def _random_state_kept() -> Iterator[None]:
    states = torch.default_generator.get_state(), random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        torch.default_generator.set_state(states[0])
        random.setstate(states[1])
        np.random.set_state(states[2])


def _stack(samples: list[Sequence[Any]], ids: Ids) -> Tensors:
    widths = [len(sample) for sample in samples]
    for id, width in zip(ids.tolist(), widths, strict=True):
        if width != widths[0]:
            raise DataError(f"sample {id} has {width} fields, sample {ids[0]} has {widths[0]}; expected equal numbers")
    return tuple(
        _stack_field(
            [_tensor(sample[field], id, field) for sample, id in zip(samples, ids.tolist(), strict=True)],
            ids,
            field,
        )
        for field in range(widths[0])
    )


def _tensor(value: Any, id: int, field: int) -> Tensor:
    if isinstance(value, Tensor):
        return value
    if isinstance(value, int | float) and not isinstance(value, np.generic):
        return torch.tensor(value)
    if isinstance(value, np.ndarray | np.generic):
        # The copy is one that torch takes as it is: writeable, and with strides that are not negative.
        array = np.array(value, order="C")
        if array.dtype.kind in "biuf" and array.dtype.isnative:
            return torch.from_numpy(array)
    what = f"{value.dtype} array" if isinstance(value, np.ndarray) else type(value).__name__
    raise DataError(
        f"sample {id}: field {field} is a {what}; expected a tensor, an array of numbers or a number "
        "(add a transform that makes one)"
    )


def _stack_field(values: list[Tensor], ids: Ids, field: int) -> Tensor:
    first = values[0]
    for id, value in zip(ids.tolist(), values, strict=True):
        if value.shape != first.shape or value.dtype != first.dtype:
            raise DataError(
                f"sample {id}: field {field} is {value.dtype} {tuple(value.shape)}, sample {ids[0]} has "
                f"{first.dtype} {tuple(first.shape)}; expected the same for all"
            )
    return torch.stack(values)
