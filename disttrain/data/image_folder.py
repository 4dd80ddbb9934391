"""Images in folders: ``root/{train, val or test}/<class>/<image file>``, the layout of ImageNet."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable
from copy import copy
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from disttrain.data.decode import SUFFIXES, decode
from disttrain.data.files import check_folder, file_size, is_there, reading
from disttrain.data.own_transform import OwnTransform
from disttrain.data.randomness import uniform
from disttrain.errors import DataError, InputError

_Change = Callable[[Tensor, int, int], Tensor]
"""From an image (3, height, width) uint8, its id and the epoch to what the model sees."""
_LAYOUT = "expected root/train/<class>/<images> and the same under root/val or root/test"
_ATTEMPTS = 10
_DRAWS = 2 * _ATTEMPTS + 3


class ImageFolder:
    """One split, read sample by sample: (image (3, size, size) uint8, label).

    Args:
        folder: the folder of the split, with one folder for each class; classes are numbered in sorted order.
        size: side of the image that is returned, in pixels.
        augment: True for training: a random resized crop (area 8 to 100 %, ratio 3:4 to 4:3; Szegedy et al.
            2015, arXiv:1409.4842) and a flip, both drawn from (seed, epoch, id). False: the shorter side is
            resized to ``round(size / 0.875)`` and the centre is cut out.
        seed: seeds the augmentation.
        transform: takes the place of these changes (see :class:`disttrain.data.own_transform.OwnTransform`).
        plain_transform: likewise, for :meth:`plain`.

    Raises:
        DataError: the folder cannot be read, has no class, a class has no image, or something else is among
            the images.
        InputError: ``size`` is below 1.
    """

    def __init__(
        self,
        folder: str | PathLike[str],
        *,
        size: int = 224,
        augment: bool = False,
        seed: int = 0,
        transform: Callable[[Any], Any] | None = None,
        plain_transform: Callable[[Any], Any] | None = None,
    ) -> None:
        if size < 1:
            raise InputError(f"size is {size}; it must be at least 1")
        self.folder = Path(folder)
        self.size = size
        self.seed = seed
        ours = self._random_crop if augment else self._centre_crop
        self.change: _Change = ours if transform is None else OwnTransform(transform, size, seed)
        self.plain_change: _Change = (
            self._centre_crop if plain_transform is None else OwnTransform(plain_transform, size, seed)
        )
        self.classes = _folders(self.folder)
        self.files: list[str] = []
        labels: list[int] = []
        for label, name in enumerate(self.classes):
            images = _images(self.folder / name)
            self.files += [f"{name}/{image}" for image in images]
            labels += [label] * len(images)
        self.labels = np.array(labels)

    def __len__(self) -> int:
        return len(self.files)

    def sample(self, id: int, epoch: int) -> tuple[Tensor, int]:
        """Sample ``id`` as it looks in ``epoch``. Raises DataError, naming the file, when it cannot be
        decoded."""
        return self.change(decode(self.folder / self.files[id]), id, epoch), int(self.labels[id])

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.sample(index, 0)

    def plain(self) -> ImageFolder:
        """The same files, not augmented."""
        plain = copy(self)
        plain.change = self.plain_change
        return plain

    def _random_crop(self, image: Tensor, id: int, epoch: int) -> Tensor:
        u = uniform(self.seed, epoch, [id], stream="image folder", draws=_DRAWS)[0]
        top, left, height, width = _random_box(image.shape[1], image.shape[2], u)
        image = _resized(image[:, top : top + height, left : left + width], self.size, self.size)
        return image.flip(-1) if u[-1] < 0.5 else image

    def _centre_crop(self, image: Tensor, id: int, epoch: int) -> Tensor:
        return _centre(image, self.size)

    def fingerprint(self) -> str:
        """SHA-256 (hex) of the relative path and size of each file. The contents are not read."""
        digest = hashlib.sha256()
        for file in self.files:
            digest.update(f"{file}\0{file_size(self.folder / file)}\0".encode(errors="surrogateescape"))
        return digest.hexdigest()


def load_image_folder(
    root: str | PathLike[str],
    *,
    size: int = 224,
    seed: int = 0,
    transform: Callable[[Any], Any] | None = None,
    test_transform: Callable[[Any], Any] | None = None,
) -> tuple[ImageFolder, ImageFolder]:
    """The training set ``root/train``, augmented, and the test set ``root/val`` or ``root/test``, which is
    not; or both changed by transforms of one's own.

    Raises:
        DataError: a folder is missing or unfit, or the two do not have the same classes.
        InputError: ``size`` is below 1.
    """
    root = Path(root)
    check_folder(root, _LAYOUT)
    make = partial(ImageFolder, size=size, seed=seed, plain_transform=test_transform)
    train = make(root / "train", augment=True, transform=transform)
    tests = [root / name for name in ("val", "test") if is_there(root / name)]
    if not tests:
        raise DataError(f"{root}: holds neither val nor test; {_LAYOUT}")
    test = make(tests[0], transform=test_transform)
    if train.classes != test.classes:
        only_train = sorted(set(train.classes) - set(test.classes))
        only_test = sorted(set(test.classes) - set(train.classes))
        raise DataError(
            f"{root}: train and {test.folder.name} do not have the same classes: {len(only_train)} only in "
            f"train {only_train[:5]}, {len(only_test)} only in {test.folder.name} {only_test[:5]}"
        )
    return train, test


def _folders(folder: Path) -> list[str]:
    """The class folders of a split, sorted. Files beside them (a list of labels, a licence) are not ours to judge."""
    entries = _entries(folder)
    for entry in entries:
        if not (_is_folder(entry) or entry.is_file()):
            raise DataError(f"{entry.path}: is neither a folder nor a file, or a link to nothing")
    classes = [entry.name for entry in entries if entry.is_dir()]
    if not classes:
        raise DataError(f"{folder}: holds no class folder; {_LAYOUT}")
    return classes


def _images(folder: Path) -> list[str]:
    """The image files of a class, sorted. Anything else but hidden files is refused: nothing is left out unseen."""
    entries = _entries(folder)
    for entry in entries:
        if _is_folder(entry) or not entry.is_file():
            raise DataError(f"{entry.path}: is no file, or a link to nothing; a class folder holds image files only")
        if not entry.name.lower().endswith(SUFFIXES):
            raise DataError(f"{entry.path}: is not an image; a class folder holds only {', '.join(SUFFIXES)}")
    if not entries:
        raise DataError(f"{folder}: holds no image; add some ({', '.join(SUFFIXES)}) or remove the folder")
    return [entry.name for entry in entries]


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What is in the folder, sorted by name, without hidden files."""
    check_folder(folder, _LAYOUT)
    with reading(folder), os.scandir(folder) as entries:
        return sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    with reading(Path(entry.path)):
        return entry.is_dir()


def _random_box(height: int, width: int, u: NDArray[np.float64]) -> tuple[int, int, int, int]:
    """(top, left, height, width) of the crop; the largest centred one of a fitting ratio if no attempt
    fits."""
    top, left = u[2 * _ATTEMPTS], u[2 * _ATTEMPTS + 1]
    low, high = 3 / 4, 4 / 3
    for attempt in range(_ATTEMPTS):
        area = height * width * (0.08 + 0.92 * u[2 * attempt])
        ratio = math.exp(math.log(low) + (math.log(high) - math.log(low)) * u[2 * attempt + 1])
        h, w = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
        if 0 < h <= height and 0 < w <= width:
            return int(top * (height - h + 1)), int(left * (width - w + 1)), h, w
    h, w = min(height, max(1, round(width / low))), min(width, max(1, round(height * high)))
    return (height - h) // 2, (width - w) // 2, h, w


def _centre(image: Tensor, size: int) -> Tensor:
    _, height, width = image.shape
    scale = size / 0.875 / min(height, width)
    resized = _resized(image, max(size, round(height * scale)), max(size, round(width * scale)))
    top, left = (resized.shape[1] - size) // 2, (resized.shape[2] - size) // 2
    return resized[:, top : top + size, left : left + size]


def _resized(image: Tensor, height: int, width: int) -> Tensor:
    # In float, because torch rounds differently on uint8 from one processor to another.
    smooth = interpolate(image[None].float(), (height, width), mode="bilinear", antialias=True, align_corners=False)
    return smooth[0].round().clamp(0, 255).byte()
