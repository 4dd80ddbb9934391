"""Transforms of one's own for folders of images: seeded per sample, asked for consent, refused where they do not fit."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from disttrain.config import load_recipe
from disttrain.config.reading.trust import outside_objects
from disttrain.data import GlobalShuffle, Loader
from disttrain.data.dataset import plain
from disttrain.errors import DataError, InputError
from disttrain.tasks.image_folder import ImageFolder

Image = pytest.importorskip("PIL.Image", reason="needs Pillow, an optional dependency")
OWN = {"transform": "tests.own_transforms:augment", "test_transform": "tests.own_transforms:centre"}


@pytest.fixture
def root(tmp_path: Path) -> str:
    draw = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in ("a", "b"):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(3):
                pixels = draw.integers(0, 256, (12, 10, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / split / name / f"{i}.png")
    return str(tmp_path)


def test_random_draws_follow_from_seed_epoch_and_sample(root: str) -> None:
    train = ImageFolder(root, 8, **OWN, seed=3).train_dataset()

    def read(batch: int, size: int, workers: int) -> dict[tuple[int, int], str]:
        found = {}
        for rank in range(size):
            order = GlobalShuffle(6, 1)
            for one in Loader(train, order, rank=rank, size=size, batch_size=batch, stop_samples=12, workers=workers):
                for id, image in zip(one.ids.tolist(), one.micro_batches[0].tensors[0], strict=True):
                    found[one.epoch, id] = str(image.tolist())
        return found

    before = torch.get_rng_state(), random.getstate(), str(np.random.get_state())
    alone = read(6, 1, 0)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1:] == (random.getstate(), str(np.random.get_state()))
    assert len(set(alone.values())) == 12
    assert read(4, 2, 1) == alone


def test_test_images_and_evaluated_training_images_are_plain(root: str) -> None:
    task = ImageFolder(root, 8, **OWN)
    assert all(torch.equal(task.test_dataset()[i][0], task.test_dataset()[i][0]) for i in range(6))
    train = task.train_dataset()
    assert torch.equal(plain(train)[2][0], ImageFolder(root, 8, **OWN, seed=9).train_dataset().plain()[2][0])
    assert not torch.equal(train[2][0], plain(train)[2][0])
    images, _ = task.prepare((torch.stack([train[0][0]]), torch.zeros(1)), torch.float32)
    assert torch.equal(images[0], train[0][0])


def test_what_does_not_fit_is_refused(root: str) -> None:
    with pytest.raises(InputError, match="transform and test_transform go together"):
        ImageFolder(root, 8, transform=OWN["transform"])
    with pytest.raises(InputError, match="has no 'nothing'"):
        ImageFolder(root, 8, transform="tests.own_transforms:nothing", test_transform=OWN["test_transform"])
    task = ImageFolder(root, 8, transform="tests.own_transforms:whole", test_transform="tests.own_transforms:whole")
    with pytest.raises(DataError, match=r"transform gave torch.uint8 \(3, 12, 10\); expected a tensor \(3, 8, 8\)"):
        task.train_dataset()[0]


def test_consent_is_asked_for_them() -> None:
    words = [
        f"task={{name: image_folder, root: x, transform: '{OWN['transform']}', test_transform: '{OWN['test_transform']}'}}"
    ]
    assert outside_objects(load_recipe(None, [*words, "model=null"])) == {
        f"task.{key}": name for key, name in OWN.items()
    }
