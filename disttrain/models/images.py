"""What models of images ask of their input."""

from __future__ import annotations

from collections.abc import Sequence

from disttrain.errors import InputError


def image_shape(in_shape: Sequence[int], smallest: int = 1) -> tuple[int, int, int]:
    """``in_shape`` as (channels, height, width).

    Raises:
        InputError: it is not the shape of an image, or a side is shorter than ``smallest`` pixels.
    """
    if len(in_shape) != 3:
        raise InputError(f"in_shape is {tuple(in_shape)}; a model of images needs (channels, height, width)")
    channels, height, width = in_shape
    if min(height, width) < smallest:
        raise InputError(f"in_shape is {tuple(in_shape)}; this model needs sides of at least {smallest} pixels")
    return channels, height, width
