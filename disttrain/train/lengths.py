"""Lengths in epochs, samples or updates, all turned into samples: the one unit schedules and positions know."""

from __future__ import annotations

from dataclasses import dataclass
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
        batch: samples of a global batch.
    """

    samples: int
    batch: int

    @property
    def updates(self) -> int:
        """Updates of one epoch; the last may be short."""
        return -(-self.samples // self.batch)

    def samples_after(self, updates: int) -> int:
        """Samples seen after so many updates."""
        epochs, rest = divmod(updates, self.updates)
        return epochs * self.samples + min(rest * self.batch, self.samples)

    def updates_after(self, samples: int) -> int:
        """Updates it takes to see at least so many samples."""
        epochs, rest = divmod(samples, self.samples)
        return epochs * self.updates + -(-rest // self.batch)

    def in_samples(self, length: Duration) -> int:
        """``length`` in samples."""
        if length.samples is not None:
            return length.samples
        if length.updates is not None:
            return self.samples_after(length.updates)
        assert length.epochs is not None
        return round(length.epochs * self.samples)
