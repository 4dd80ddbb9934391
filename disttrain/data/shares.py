"""How a global batch is cut: contiguous shares for the ranks, contiguous micro-batches within a share."""

from __future__ import annotations

from disttrain.errors import InputError


def share(count: int, rank: int, size: int) -> tuple[int, int]:
    """The half-open range [lo, hi) of ``count`` items that belongs to ``rank`` of ``size`` ranks.

    The ranges of all ranks are contiguous, cover everything once, and their sizes differ by at most one.
    """
    return count * rank // size, count * (rank + 1) // size


def micro_batches(lo: int, hi: int, per_rank_max: int) -> list[tuple[int, int]]:
    """Cut [lo, hi) into the fewest contiguous pieces of at most ``per_rank_max`` items; sizes differ by at
    most one.

    Returns an empty list for an empty range.

    Raises:
        InputError: ``per_rank_max`` is below 1.
    """
    if per_rank_max < 1:
        raise InputError(f"per_rank_max is {per_rank_max}; it must be at least 1")
    count = hi - lo
    pieces = -(-count // per_rank_max)
    return [(lo + a, lo + b) for a, b in (share(count, piece, pieces) for piece in range(pieces))]
