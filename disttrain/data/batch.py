"""What a loader delivers: the rank's share of a global batch, cut into micro-batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from disttrain.data.tree import Tensors


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """What goes through the model at once."""

    tensors: Tensors
    """What the samples are, a tuple or a dict for example, of tensors (n, ...)."""
    ids: NDArray[np.int64]
    """(n,) sample ids."""
    weight: float
    """1.0; or 0.0 for a sample that was borrowed because this rank's share is empty. Multiply the loss by
    it."""


@dataclass(frozen=True, slots=True)
class Batch:
    """One rank's share of a global batch. Iterates over its micro-batches."""

    epoch: int
    offset: int
    """Samples of the epoch that come before this global batch."""
    size: int
    """Samples in the global batch, over all ranks: what a summed loss is divided by."""
    ends_epoch: bool
    """Whether the next batch belongs to the next epoch."""
    global_ids: NDArray[np.int64]
    """(size,) sample ids of the global batch, in order."""
    before: int
    """Samples of the global batch that belong to earlier ranks."""
    share: int
    """Samples of the global batch that belong to this rank; 0 when there are fewer samples than ranks."""
    micro_batches: Sequence[MicroBatch]
    """At least one, so that every rank takes part in every exchange."""

    def __iter__(self) -> Iterator[MicroBatch]:
        return iter(self.micro_batches)

    def first(self, index: int) -> int:
        """Place in the global batch of the first sample of micro-batch ``index``; 0 for a borrowed sample."""
        return self.before * (self.share > 0) + sum(len(micro.ids) for micro in self.micro_batches[:index])

    @property
    def ids(self) -> NDArray[np.int64]:
        """(share,) sample ids of this rank's share."""
        return self.global_ids[self.before : self.before + self.share]

    def indices(self, index: int) -> NDArray[np.int64]:
        """(n,) where the samples of micro-batch ``index`` stand in the global batch; 0 for a borrowed sample.

        What is drawn at random for each of them as a function of the seed, the update and this number does not depend on the
        ranks; see :func:`disttrain.data.noise`.
        """
        begin = self.first(index)
        return np.arange(begin, begin + len(self.micro_batches[index].ids), dtype=np.int64)

    @property
    def tensors(self) -> Tensors:
        """The tensors of the only micro-batch.

        Raises:
            ValueError: the share was cut into several, or is empty and holds a borrowed sample.
        """
        only = self.micro_batches[0]
        if len(self.micro_batches) > 1:
            raise ValueError(f"this batch has {len(self.micro_batches)} micro-batches; iterate over the batch")
        if only.weight == 0.0:
            raise ValueError(
                "this rank's share of the batch is empty and holds a borrowed sample of weight 0; "
                "iterate over the batch and multiply the loss by the weight"
            )
        return only.tensors
