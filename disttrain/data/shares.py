"""How a global batch is cut: contiguous shares for the ranks, contiguous micro-batches within a share.

With ghost batch norm the cuts are made between ghosts only: ghost g of a batch then holds the same samples however many
ranks and micro-batches there are.
"""

from __future__ import annotations

from itertools import pairwise

from disttrain.errors import InputError


def share(count: int, rank: int, size: int, ghost_size: int = 1) -> tuple[int, int]:
    """The half-open range [lo, hi) of ``count`` items that belongs to ``rank`` of ``size`` ranks.

    The ranges of all ranks are contiguous and cover everything once. Their sizes differ by at most one ghost, and by at
    most one item where ``ghost_size`` is 1.
    """
    borders = ghost_borders(count, ghost_size)
    ghosts = len(borders) - 1
    return borders[ghosts * rank // size], borders[ghosts * (rank + 1) // size]


def shares(count: int, size: int, ghost_size: int = 1) -> tuple[int, int]:
    """The smallest and the largest number of items that a rank has of ``count``."""
    found = [hi - lo for lo, hi in (share(count, rank, size, ghost_size) for rank in range(size))]
    return min(found), max(found)


def micro_batches(lo: int, hi: int, per_rank_max: int, ghost_size: int = 1) -> list[tuple[int, int]]:
    """Cut [lo, hi) into the fewest contiguous pieces of at most ``per_rank_max`` items; sizes differ by at
    most one ghost.

    A batch's last ghost holds the remainder too, so with ghosts a piece may be longer by less than a ghost.

    Returns an empty list for an empty range.

    Raises:
        InputError: ``per_rank_max`` is below ``ghost_size``.
    """
    if per_rank_max < ghost_size:
        what = f"the ghost size {ghost_size}" if ghost_size > 1 else "1"
        raise InputError(f"per_rank_max is {per_rank_max}; it must be at least {what}")
    if lo == hi:
        return []
    borders = ghost_borders(hi - lo, ghost_size)
    ghosts = len(borders) - 1
    pieces = -(-ghosts // (per_rank_max // ghost_size))
    cuts = [lo + borders[ghosts * piece // pieces] for piece in range(pieces + 1)]
    return list(pairwise(cuts))


def ghost_borders(count: int, ghost_size: int) -> range | list[int]:
    """Where the ghosts of ``count`` items begin, and ``count``: ghosts of ``ghost_size``, the last with the remainder;
    fewer items than that are one ghost.

    Examples:
        >>> list(ghost_borders(10, 4)), list(ghost_borders(3, 4)), list(ghost_borders(0, 4))
        ([0, 4, 10], [0, 3], [0])
    """
    if ghost_size == 1:
        return range(count + 1)
    if count == 0:
        return [0]
    return [*range(0, max(count // ghost_size, 1) * ghost_size, ghost_size), count]
