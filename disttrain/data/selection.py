"""Which samples of a set are trained on, which validate, and which show how well those trained on are known.

All three are slices of one fixed permutation of the set's ids, so they are of exact size, share no sample unless they are
meant to, and depend on nothing but the number of samples: not on the seed, the epoch or the ranks.
"""

from __future__ import annotations

from dataclasses import dataclass

from disttrain.data.permutation import Ids, permuted
from disttrain.errors import InputError


@dataclass(frozen=True, slots=True)
class Selection:
    """Samples of a set of ``total``: the places [lo, hi) of the fixed permutation of its ids. Nothing is stored."""

    total: int
    lo: int
    hi: int

    def __post_init__(self) -> None:
        if not 0 <= self.lo <= self.hi <= self.total:
            raise ValueError(f"places [{self.lo}, {self.hi}) do not lie in a set of {self.total} samples")

    def __len__(self) -> int:
        return self.hi - self.lo

    def ids(self, positions: Ids) -> Ids:
        """The ids in the set of the selection's samples ``positions`` (n,)."""
        return permuted(positions + self.lo, self.total, seed=0, epoch=0, stream="selection")

    def first(self, count: int) -> Selection:
        """The first ``count`` samples of the selection, or all of them where it has fewer."""
        return Selection(self.total, self.lo, min(self.lo + count, self.hi))


def trained_on(total: int, fraction: float | None) -> Selection | None:
    """The samples of a train set of ``total`` that are trained on where ``fraction`` validates; None: all of them."""
    return None if fraction is None else held_out(total, fraction)[0]


def held_out(total: int, fraction: float) -> tuple[Selection, Selection]:
    """The two ends of a set of ``total`` samples: what is trained on, and ``round(fraction * total)`` that validate.

    Raises:
        InputError: one of them would be empty.
    """
    count = round(fraction * total)
    if not 0 < count < total:
        raise InputError(
            f"data.validation.fraction {fraction:g} of {total:,} samples leaves {total - count:,} for training and {count:,} "
            "for validation; each needs at least 1"
        )
    return Selection(total, 0, total - count), Selection(total, total - count, total)
