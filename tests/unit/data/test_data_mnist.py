"""The four files of MNIST's format, and the real Fashion-MNIST (rows 40, 45, 46, 47 and 54)."""

from __future__ import annotations

import gzip
import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from data_cases import idx_bytes, unprivileged, write_mnist

from disttrain.data.mnist import load_mnist_like, sizes
from disttrain.errors import DataError


def refused(root: Path) -> str:
    with pytest.raises(DataError) as caught:
        load_mnist_like(root)
    assert str(root) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("compressed", [False, True])
def test_a_small_set(tmp_path: Path, compressed: bool) -> None:
    root = write_mnist(tmp_path / "set", train=6, test=3, compressed=compressed)
    train, test = load_mnist_like(root)
    assert (len(train), len(test)) == sizes(root) == (6, 3)
    images, labels = train.tensors
    assert (images.shape, images.dtype) == ((6, 1, 28, 28), torch.uint8)
    assert (labels.shape, labels.dtype) == ((6,), torch.int64)
    # By hand: image 2 begins at byte 16 + 2 * 784, label 2 is byte 8 + 2.
    name = "train-images-idx3-ubyte" + (".gz" if compressed else "")
    raw = (root / name).read_bytes()
    raw = gzip.decompress(raw) if compressed else raw
    assert images[2].flatten().tolist() == list(raw[16 + 2 * 784 : 16 + 3 * 784])


def test_fashion_mnist(data_root: Path) -> None:
    root = data_root / "fashion-mnist"
    assert sizes(root) == (60000, 10000)
    train, test = load_mnist_like(root)
    assert train.tensors[0].shape == (60000, 1, 28, 28)
    assert test.tensors[0].shape == (10000, 1, 28, 28)
    # The set is balanced, as its publishers say.
    assert torch.bincount(train.tensors[1]).tolist() == [6000] * 10
    assert torch.bincount(test.tensors[1]).tolist() == [1000] * 10
    assert train.tensors[1][:5].tolist() == [9, 0, 0, 3, 0]
    assert train.fingerprint() == fingerprint_by_hand(root, "train", 60000)
    assert test.fingerprint() == fingerprint_by_hand(root, "t10k", 10000)


def fingerprint_by_hand(root: Path, split: str, count: int) -> str:
    """From the bytes of the files: headers of 16 and 8 bytes, labels widened to eight little-endian bytes each."""
    images = gzip.decompress((root / f"{split}-images-idx3-ubyte.gz").read_bytes())[16:]
    labels = gzip.decompress((root / f"{split}-labels-idx1-ubyte.gz").read_bytes())[8:]
    digest = hashlib.sha256(f"torch.uint8 ({count}, 1, 28, 28);".encode() + images)
    digest.update(f"torch.int64 ({count},);".encode() + b"".join(bytes([label, *bytes(7)]) for label in labels))
    return digest.hexdigest()


def test_row_40_no_folder(tmp_path: Path) -> None:
    message = refused(tmp_path / "none")
    assert "no such folder" in message
    assert f"disttrain data fetch fashion_mnist --to {tmp_path / 'none'}" in message


@pytest.mark.parametrize("index", range(4))
def test_row_40_no_file(tmp_path: Path, index: int) -> None:
    root = write_mnist(tmp_path / "set")
    file = sorted(root.iterdir())[index]
    file.unlink()
    message = refused(root)
    assert f"holds neither {file.name} nor {file.name}.gz" in message
    assert "disttrain data fetch" in message
    with pytest.raises(DataError):
        sizes(root)


def test_row_41_every_file_cut_off_anywhere(tmp_path: Path) -> None:
    root = write_mnist(tmp_path / "set", train=1, test=1, compressed=True)
    for file in sorted(root.iterdir()):
        whole = file.read_bytes()
        for length in range(len(whole)) if "labels" in file.name else range(0, len(whole), 37):
            file.write_bytes(whole[:length])
            assert file.name in refused(root)
        file.write_bytes(whole)
    load_mnist_like(root)


def test_row_42_files_that_hold_something_else(tmp_path: Path) -> None:
    root = write_mnist(tmp_path / "set")
    images = root / "train-images-idx3-ubyte"
    for array in (np.zeros((6, 28, 27), np.uint8), np.zeros((6, 784), np.uint8), np.zeros((6, 28, 28), np.int8)):
        images.write_bytes(idx_bytes(array))
        assert "expected uint8 (n, 28, 28)" in refused(root)
    write_mnist(root)
    (root / "t10k-labels-idx1-ubyte").write_bytes(idx_bytes(np.zeros(3, np.int32)))
    assert "t10k-labels-idx1-ubyte: holds int32 (3,); expected uint8 (n,)" in refused(root)


def test_row_45_counts_differ(tmp_path: Path) -> None:
    root = write_mnist(tmp_path / "set", train=6)
    (root / "train-labels-idx1-ubyte").write_bytes(idx_bytes(np.zeros(5, np.uint8)))
    assert "holds 6 images but train-labels-idx1-ubyte holds 5 labels" in refused(root)
    with pytest.raises(DataError, match="5 labels"):
        sizes(root)


def test_row_46_label_outside_the_classes(tmp_path: Path) -> None:
    root = write_mnist(tmp_path / "set", train=6)
    (root / "train-labels-idx1-ubyte").write_bytes(idx_bytes(np.array([0, 9, 10, 1, 255, 0], np.uint8)))
    assert "label 10 at index 2; labels must be from 0 to 9 (2 of 6 are not)" in refused(root)


def test_row_47_no_sample(tmp_path: Path) -> None:
    assert "holds no image" in refused(write_mnist(tmp_path / "set", train=0))


def test_row_54_link_loops(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert "symbolic links" in refused(tmp_path / "a")
    root = write_mnist(tmp_path / "set")
    (root / "train-images-idx3-ubyte").unlink()
    (root / "train-images-idx3-ubyte").symlink_to("train-images-idx3-ubyte")
    assert "train-images-idx3-ubyte: Too many levels of symbolic links" in refused(root)


def test_row_54_no_permission(tmp_path: Path) -> None:
    for folder in (tmp_path, *tmp_path.parents[:2]):
        os.chmod(folder, 0o755)
    root = write_mnist(tmp_path / "set")
    file = root / "train-images-idx3-ubyte"
    os.chmod(file, 0)
    with unprivileged():
        assert f"{file}: Permission denied" in refused(root)
    os.chmod(file, 0o644)
    os.chmod(root, 0)
    with unprivileged():
        assert "Permission denied" in refused(root)
    os.chmod(root, 0o755)


def test_a_file_instead_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "set").write_text("")
    assert "is not a folder" in refused(tmp_path / "set")
