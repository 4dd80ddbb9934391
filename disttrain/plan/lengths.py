"""Lengths in epochs, samples or updates, all turned into samples: the one unit schedules and positions know."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Protocol


class Duration(Protocol):
    """What a recipe says of a length: exactly one of the three is not None."""

    @property
    def epochs(self) -> float | None: ...
    @property
    def samples(self) -> int | None: ...
    @property
    def updates(self) -> int | None: ...


@dataclass(frozen=True, slots=True)
class EpochLength:
    """How one epoch is cut into updates.

    Attributes:
        samples: samples of one epoch that go into updates.
        batch: samples of the first global batch.
        batch_at: the global batch after so many samples, where it grows.
        stretch: factor on lengths in epochs and samples: regime adaptation.
    """

    samples: int
    batch: int
    batch_at: Callable[[int], int] | None = None
    stretch: float = 1.0

    @property
    def updates(self) -> int:
        """Updates of the first epoch; the last may be short."""
        return self.updates_after(self.samples)

    def batch_after(self, samples: int) -> int:
        """Samples of the global batch after so many."""
        return self.batch if self.batch_at is None else self.batch_at(samples)

    def samples_after(self, updates: int) -> int:
        """Samples seen after so many updates."""
        if self.batch_at is not None:
            return next(islice(self._seen(self.batch_at), updates, None))
        each = -(-self.samples // self.batch)
        epochs, rest = divmod(updates, each)
        return epochs * self.samples + min(rest * self.batch, self.samples)

    def updates_after(self, samples: int) -> int:
        """Updates it takes to see at least so many samples."""
        if self.batch_at is not None:
            return next(update for update, seen in enumerate(self._seen(self.batch_at)) if seen >= samples)
        epochs, rest = divmod(samples, self.samples)
        return epochs * -(-self.samples // self.batch) + -(-rest // self.batch)

    def in_samples(self, length: Duration) -> int:
        """``length`` in samples."""
        if length.samples is not None:
            return round(length.samples * self.stretch)
        if length.updates is not None:
            return self.samples_after(length.updates)
        assert length.epochs is not None
        return round(length.epochs * self.stretch * self.samples)

    def _seen(self, batch_at: Callable[[int], int]) -> Iterator[int]:
        """Samples seen after 0, 1, 2 and so on updates."""
        seen = 0
        while True:
            yield seen
            seen += min(batch_at(seen), self.samples - seen % self.samples)
