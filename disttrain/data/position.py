"""Where a run stands. Together with the recipe it decides everything that the data still holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from disttrain.errors import CheckpointError

if TYPE_CHECKING:
    from disttrain.data.batch import Batch


@dataclass(frozen=True, slots=True)
class Position:
    """The batch to come next, and what has been trained on so far. It does not know the number of ranks."""

    epoch: int = 0
    offset: int = 0
    """Samples of the epoch that are behind us."""
    samples: int = 0
    """Samples that went into updates: what schedules are functions of."""
    updates: int = 0
    """Optimizer updates applied."""

    def advanced(self, batch: Batch) -> Position:
        """The position after an update with ``batch``."""
        at_end = batch.ends_epoch
        return Position(
            epoch=batch.epoch + at_end,
            offset=0 if at_end else batch.offset + batch.size,
            samples=self.samples + batch.size,
            updates=self.updates + 1,
        )

    def to_dict(self) -> dict[str, int]:
        """The position as plain numbers, for JSON."""
        return asdict(self)

    @staticmethod
    def from_dict(state: Mapping[str, Any]) -> Position:
        """The inverse of :meth:`to_dict`.

        Raises:
            CheckpointError: a key is missing or unknown, or a value is not an integer of at least 0.
        """
        names = [field.name for field in fields(Position)]
        if sorted(state) != sorted(names):
            raise CheckpointError(f"position: the keys are {sorted(state)}; expected exactly {sorted(names)}")
        for name in names:
            value = state[name]
            if type(value) is not int or value < 0:
                raise CheckpointError(f"position: {name} is {value!r}; expected an integer of at least 0")
        return Position(**state)
