"""Datasets in memory and their augmentation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from disttrain.data.arrays import ArrayDataset
from disttrain.data.augment import Augmented, RandomFlip, RandomShift
from disttrain.data.randomness import uniform
from disttrain.errors import InputError

IMAGES = torch.from_numpy(np.random.default_rng(0).integers(1, 256, (9, 2, 5, 6), dtype=np.uint8))
LABELS = torch.arange(9)


def test_gather_is_indexing() -> None:
    dataset = ArrayDataset(IMAGES.transpose(2, 3), LABELS)
    ids = np.array([3, 0, 8, 3])
    images, labels = dataset.gather(ids)
    assert torch.equal(images, IMAGES.transpose(2, 3)[torch.from_numpy(ids)])
    assert labels.tolist() == [3, 0, 8, 3]
    assert len(dataset) == 9
    assert torch.equal(dataset[4][0], IMAGES[4].transpose(1, 2))
    assert all(tensor.is_contiguous() for tensor in dataset.tensors)


def test_fingerprint_sees_every_byte_shape_and_type() -> None:
    base = ArrayDataset(IMAGES, LABELS).fingerprint()
    assert ArrayDataset(IMAGES.clone(), LABELS.clone()).fingerprint() == base
    changed = IMAGES.clone()
    changed[8, 1, 4, 5] ^= 1
    others = {
        ArrayDataset(changed, LABELS).fingerprint(),
        ArrayDataset(IMAGES.reshape(9, 2, 6, 5), LABELS).fingerprint(),
        ArrayDataset(IMAGES.view(torch.int8), LABELS).fingerprint(),
        ArrayDataset(LABELS, IMAGES).fingerprint(),
        ArrayDataset(IMAGES).fingerprint(),
    }
    assert len(others | {base}) == 6


@pytest.mark.parametrize("dtype", [torch.bool, torch.bfloat16, torch.float64])
def test_fingerprint_of_any_type(dtype: torch.dtype) -> None:
    assert len(ArrayDataset(torch.ones(3, 2, dtype=dtype)).fingerprint()) == 64


def test_unfit_tensors_are_refused() -> None:
    with pytest.raises(InputError, match="at least one tensor"):
        ArrayDataset()
    with pytest.raises(InputError, match=r"hold \[9, 8\] samples; expected equal numbers"):
        ArrayDataset(IMAGES, LABELS[:8])
    with pytest.raises(InputError, match="tensor 1 of ArrayDataset has shape"):
        ArrayDataset(IMAGES, torch.tensor(1))
    with pytest.raises(InputError, match="on meta"):
        ArrayDataset(torch.empty(3, device="meta"))


def shifted_by_hand(image: torch.Tensor, u: np.ndarray, pixels: int) -> torch.Tensor:
    down, right = (pixels - int(value * (2 * pixels + 1)) for value in u)
    out = torch.zeros_like(image)
    height, width = image.shape[1:]
    for y in range(height):
        for x in range(width):
            if 0 <= y - down < height and 0 <= x - right < width:
                out[:, y, x] = image[:, y - down, x - right]
    return out


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_shift_against_loops(dtype: torch.dtype) -> None:
    u = uniform(0, 0, np.arange(9), stream="t", draws=2)
    images = IMAGES.to(dtype)
    found = RandomShift(2)(images, u)
    assert found.dtype == dtype
    for i in range(9):
        assert torch.equal(found[i], shifted_by_hand(images[i], u[i], 2))


def test_every_shift_happens_and_none_beyond() -> None:
    dot = torch.zeros(4000, 1, 9, 9)
    dot[:, :, 4, 4] = 1
    moved = RandomShift(2)(dot, uniform(0, 0, np.arange(4000), stream="t", draws=2)).sum(0)[0]
    assert moved.sum() == 4000
    assert (moved[2:7, 2:7] > 100).all()


def test_no_shift_changes_nothing() -> None:
    assert torch.equal(RandomShift(0)(IMAGES, uniform(0, 0, np.arange(9), stream="t", draws=2)), IMAGES)
    with pytest.raises(InputError, match="pixels is -1"):
        RandomShift(-1)


def test_flip() -> None:
    found = RandomFlip()(IMAGES[:2], np.array([[0.4], [0.6]]))
    assert torch.equal(found[0], IMAGES[0].flip(-1))
    assert torch.equal(found[1], IMAGES[1])


def test_augmentation_depends_on_seed_epoch_and_id_only() -> None:
    dataset = Augmented(ArrayDataset(IMAGES, LABELS), [RandomShift(2), RandomFlip()], seed=4)
    whole, labels = dataset.gather(np.arange(9), 1)
    assert labels.tolist() == list(range(9))
    for ids in ([5], [8, 1], [1, 8, 5]):
        assert torch.equal(dataset.gather(np.array(ids), 1)[0], whole[ids])
    assert not torch.equal(dataset.gather(np.arange(9), 2)[0], whole)
    other = Augmented(dataset.dataset, dataset.transforms, seed=5)
    assert not torch.equal(other.gather(np.arange(9), 1)[0], whole)


def test_two_equal_transforms_draw_differently() -> None:
    count = 200
    dot = torch.zeros(count, 1, 9, 9)
    dot[:, :, 4, 4] = 1
    twice = Augmented(ArrayDataset(dot), [RandomShift(1), RandomShift(1)], seed=0).gather(np.arange(count), 0)[0]
    rows = twice.flatten(1).argmax(1) // 9 - 4
    # With the same draws twice, only even shifts could happen.
    assert (rows.abs() == 1).any()
