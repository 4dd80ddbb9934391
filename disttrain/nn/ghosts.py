"""How a batch is cut into ghosts."""

from __future__ import annotations


def ghost_count(samples: int, ghost_size: int) -> int:
    """Ghosts in a batch: ``samples // ghost_size``, at least 1.

    >>> ghost_count(10, 4), ghost_count(3, 4)
    (2, 1)
    """
    return max(samples // ghost_size, 1)


def ghost_sizes(samples: int, ghost_size: int) -> list[int]:
    """Their sizes: ``ghost_size`` each, the last with the remainder.

    >>> ghost_sizes(10, 4), ghost_sizes(3, 4)
    ([4, 6], [3])
    """
    count = ghost_count(samples, ghost_size)
    return [ghost_size] * (count - 1) + [samples - ghost_size * (count - 1)]
