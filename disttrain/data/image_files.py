"""Image files without classes: what a trained model is to look at."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from disttrain.data.decode import SUFFIXES, decode
from disttrain.errors import DataError


class ImageFiles:
    """An image, or all images in a folder and below it, sorted by path: a tuple of one tensor each.

    Args:
        path: of the file or the folder.
        change: what makes the tensor of an image (3, height, width) uint8, its place and the epoch: the ``change`` of the test
            set's :class:`disttrain.data.image_folder.ImageFolder`.

    Attributes:
        names: of the samples: their paths within the folder.

    Raises:
        DataError: there is no image.
    """

    def __init__(self, path: Path, change: Callable[[Tensor, int, int], Tensor]) -> None:
        self._folder = path if path.is_dir() else path.parent
        found = sorted(path.rglob("*")) if path.is_dir() else [path]
        self._files = [file for file in found if file.is_file() and file.name.lower().endswith(SUFFIXES)]
        if not self._files:
            raise DataError(f"{path}: there is no image in it; images are {', '.join(SUFFIXES)}")
        self._change = change
        self.names = [str(file.relative_to(self._folder)) for file in self._files]

    def __len__(self) -> int:
        return len(self._files)

    def sample(self, id: int, epoch: int) -> tuple[Tensor]:
        """Image ``id``. Raises DataError, naming the file, when it cannot be decoded."""
        return (self._change(decode(self._files[id]), id, epoch),)
