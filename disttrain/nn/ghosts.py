"""How a batch is cut into ghosts."""

from __future__ import annotations


def ghost_count(samples: int, ghost_size: int) -> int:
    """Ghosts in a batch: ``samples // ghost_size``, at least 1 for a batch that is not empty.

    Raises:
        ValueError: ``ghost_size`` is below 1.

    >>> ghost_count(10, 4), ghost_count(3, 4), ghost_count(0, 4)
    (2, 1, 0)
    """
    if ghost_size < 1:
        raise ValueError(f"ghost_size is {ghost_size}; it must be at least 1")
    return max(samples // ghost_size, 1) if samples else 0


def ghost_sizes(samples: int, ghost_size: int) -> list[int]:
    """Their sizes: ``ghost_size`` each, the last with the remainder.

    Raises:
        ValueError: ``ghost_size`` is below 1.

    >>> ghost_sizes(10, 4), ghost_sizes(3, 4), ghost_sizes(0, 4)
    ([4, 6], [3], [])
    """
    count = ghost_count(samples, ghost_size)
    return [ghost_size] * (count - 1) + [samples - ghost_size * (count - 1)] if count else []
