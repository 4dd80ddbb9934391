"""MNIST and the sets in its format (Fashion-MNIST, KMNIST): four IDX files in one folder."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from disttrain.data.files import check_folder, is_there
from disttrain.data.idx import header, read_idx
from disttrain.errors import DataError

if TYPE_CHECKING:
    from disttrain.data.arrays import ArrayDataset

_SPLITS = {"train": "train", "test": "t10k"}
_SIDE = 28


def load_mnist_like(root: str | PathLike[str], classes: int = 10) -> tuple[ArrayDataset, ArrayDataset]:
    """The training and the test set in the folder ``root``.

    Returns:
        Two datasets of (images, labels): images (n, 1, 28, 28) uint8, labels (n,) int64.

    Raises:
        DataError: a file is missing or damaged, images and labels do not match, a label is not below
            ``classes``, or there is no sample. The message names the file.
    """
    return _load(Path(root), "train", classes), _load(Path(root), "test", classes)


def sizes(root: str | PathLike[str]) -> tuple[int, int]:
    """The numbers of training and of test samples, from the headers alone.

    Raises:
        DataError: a file is missing or its header is damaged, or images and labels do not match.
    """
    return _size(Path(root), "train"), _size(Path(root), "test")


def _load(root: Path, split: str, classes: int) -> ArrayDataset:
    import torch

    from disttrain.data.arrays import ArrayDataset

    # Headers first: files that do not belong together are refused before anything large is decompressed.
    count = _size(root, split)
    images = read_idx(_find(root, split, "images-idx3-ubyte"))
    path = _find(root, split, "labels-idx1-ubyte")
    labels = read_idx(path).astype(np.int64)
    wrong = np.flatnonzero(labels >= classes)
    if len(wrong):
        raise DataError(
            f"{path}: label {labels[wrong[0]]} at index {wrong[0]}; labels must be from 0 to {classes - 1} "
            f"({len(wrong)} of {count} are not)"
        )
    return ArrayDataset(torch.from_numpy(images).reshape(count, 1, _SIDE, _SIDE), torch.from_numpy(labels))


def _size(root: Path, split: str) -> int:
    images_path = _find(root, split, "images-idx3-ubyte")
    labels_path = _find(root, split, "labels-idx1-ubyte")
    images, labels = header(images_path), header(labels_path)
    if images.dtype.itemsize != 1 or images.dtype.kind != "u" or images.shape[1:] != (_SIDE, _SIDE):
        raise DataError(
            f"{images_path}: holds {images.dtype.name} {images.shape}; expected uint8 (n, {_SIDE}, {_SIDE})"
        )
    if labels.dtype.itemsize != 1 or labels.dtype.kind != "u" or len(labels.shape) != 1:
        raise DataError(f"{labels_path}: holds {labels.dtype.name} {labels.shape}; expected uint8 (n,)")
    if images.shape[0] != labels.shape[0]:
        raise DataError(
            f"{images_path} holds {images.shape[0]} images but {labels_path.name} holds {labels.shape[0]} "
            "labels; the files do not belong together"
        )
    if images.shape[0] == 0:
        raise DataError(f"{images_path}: holds no image; expected at least 1")
    return images.shape[0]


def _find(root: Path, split: str, kind: str) -> Path:
    advice = f"`disttrain data fetch fashion_mnist --to {root}` (or mnist) downloads the four IDX files"
    check_folder(root, advice)
    name = f"{_SPLITS[split]}-{kind}"
    for path in (root / name, root / f"{name}.gz"):
        if is_there(path):
            return path
    raise DataError(f"{root}: holds neither {name} nor {name}.gz; {advice}")
