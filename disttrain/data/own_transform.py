"""A transform of somebody's own for image files, whose random draws follow from seed, epoch and sample."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor

from disttrain.data.generators import random_state_kept, seed_generators
from disttrain.data.randomness import bits
from disttrain.errors import DataError, InputError


class OwnTransform:
    """From a PIL image (RGB) to a tensor ``(3, size, size)``: uint8, which the task normalises, or floats, which are taken as
    they are. The generators of torch (CPU), ``random`` and ``numpy.random`` are seeded for each image and put back.

    Raises:
        InputError: Pillow is not installed.
    """

    def __init__(self, transform: Callable[[Any], Any], size: int, seed: int) -> None:
        if find_spec("PIL") is None:
            raise InputError("a transform of images needs Pillow: pip install 'disttrain[images]'")
        self.transform, self.size, self.seed = transform, size, seed

    def __call__(self, image: Tensor, id: int, epoch: int) -> Tensor:
        """What the transform makes of ``image`` (3, height, width) uint8. Raises DataError if that is something else."""
        from PIL import Image

        picture = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
        with random_state_kept():
            seed_generators(int(bits(self.seed, epoch, np.array([id]), stream="sample")[0, 0]))
            made = self.transform(picture)
        tensor = torch.from_numpy(made) if isinstance(made, np.ndarray) else made
        shape = (3, self.size, self.size)
        if not isinstance(tensor, Tensor) or tensor.shape != shape or not _is_pixels(tensor):
            what = f"{tensor.dtype} {tuple(tensor.shape)}" if isinstance(tensor, Tensor) else type(made).__name__
            raise DataError(
                f"transform gave {what}; expected a tensor {shape} (image_size is {self.size}), floats or uint8"
            )
        return tensor

    def __repr__(self) -> str:
        names = (getattr(self.transform, name, "") for name in ("__module__", "__qualname__"))
        return f"{':'.join(names)} {self.seed}"


def _is_pixels(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.dtype == torch.uint8
