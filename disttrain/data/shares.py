"""How a global batch is cut: contiguous shares for the ranks, contiguous micro-batches within a share.

With ghost batch norm the cuts are made between ghosts only: ghost g of a batch then holds the same samples however many
ranks and micro-batches there are. A batch can also be cut into slices of a fixed size, each a micro-batch on whatever rank.
"""

from __future__ import annotations

from itertools import pairwise

from disttrain.errors import InputError


def share(count: int, rank: int, size: int, ghost_size: int = 1, slice_size: int = 0) -> tuple[int, int]:
    """The half-open range [lo, hi) of ``count`` items that belongs to ``rank`` of ``size`` ranks.

    The ranges of all ranks are contiguous and cover everything once. Their sizes differ by at most one ghost (one slice,
    where ``slice_size`` is not 0), and by at most one item where ``ghost_size`` is 1.
    """
    borders = slice_borders(count, slice_size, ghost_size) if slice_size else ghost_borders(count, ghost_size)
    ghosts = len(borders) - 1
    return borders[ghosts * rank // size], borders[ghosts * (rank + 1) // size]


def shares(count: int, size: int, ghost_size: int = 1) -> tuple[int, int]:
    """The smallest and the largest number of items that a rank has of ``count``."""
    found = [hi - lo for lo, hi in (share(count, rank, size, ghost_size) for rank in range(size))]
    return min(found), max(found)


def pieces(
    count: int, rank: int, size: int, per_rank_max: int | None, ghost_size: int = 1, slice_size: int = 0
) -> list[tuple[int, int]]:
    """The micro-batches [lo, hi) of ``rank`` of ``size`` ranks: none where its share of ``count`` items is empty.

    Args:
        per_rank_max: as for :func:`micro_batches`; None for no limit.
        slice_size: each slice of so many items is one, whatever ``per_rank_max`` is; 0: no slices.
    """
    lo, hi = share(count, rank, size, ghost_size, slice_size)
    if slice_size:
        return [(a, b) for a, b in pairwise(slice_borders(count, slice_size, ghost_size)) if lo <= a < hi]
    return micro_batches(lo, hi, per_rank_max or max(hi - lo, 1), min(ghost_size, max(hi - lo, 1)))


def piece_sizes(count: int, size: int, per_rank_max: int | None, ghost_size: int = 1, slice_size: int = 0) -> list[int]:
    """Samples of each micro-batch of all ranks."""
    every_rank = (pieces(count, rank, size, per_rank_max, ghost_size, slice_size) for rank in range(size))
    return [hi - lo for found in every_rank for lo, hi in found]


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


def slice_borders(count: int, slice_size: int, ghost_size: int = 1) -> list[int]:
    """Where the slices of ``count`` items begin, and ``count``. What remains is a slice of its own, if it has a ghost, and part
    of the last one otherwise.

    Args:
        slice_size: a multiple of ``ghost_size``.

    Examples:
        >>> slice_borders(10, 4), slice_borders(9, 4, 2), slice_borders(3, 4)
        ([0, 4, 8, 10], [0, 4, 9], [0, 3])
    """
    return [*range(0, max(count - ghost_size + 1, 1), slice_size), count]
