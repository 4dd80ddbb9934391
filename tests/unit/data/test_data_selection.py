"""Which samples are trained on, validate and are evaluated: fixed, exact, and the same for all kinds of datasets and ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from permutation_by_hand import permuted_by_hand
from torch import Tensor
from torch.utils.data import Dataset

from disttrain.data import ArrayDataset, GlobalShuffle, Loader
from disttrain.data.augment import Augmented, RandomFlip
from disttrain.data.dataset import plain
from disttrain.data.evaluation import evaluation_batches
from disttrain.data.image_folder import ImageFolder
from disttrain.data.mix import MixedInMemory, MixedPerSample, MixSettings
from disttrain.data.selection import Selection, held_out, trained_on
from disttrain.errors import InputError


def ids_of(selection: Selection) -> list[int]:
    return selection.ids(np.arange(len(selection))).tolist()


class OneByOne:
    """Sample i is (10 i, i mod 3)."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    def sample(self, id: int, epoch: int) -> tuple[Tensor, int]:
        return torch.full((1, 1, 1), 10.0 * id), id % 3


class Torch(Dataset[Any]):
    """The same as a plain torch dataset."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.full((1, 1, 1), 10.0 * index), index % 3


def in_memory(n: int) -> ArrayDataset:
    return ArrayDataset(10.0 * torch.arange(n).view(-1, 1, 1, 1), torch.arange(n) % 3)


@given(st.integers(2, 20_000), st.floats(0.0, 1.0, exclude_min=True, exclude_max=True))
def test_the_two_ends_are_exact_and_share_nothing(total: int, fraction: float) -> None:
    count = round(fraction * total)
    if not 0 < count < total:
        with pytest.raises(InputError, match="each needs at least 1"):
            held_out(total, fraction)
        return
    train, validation = held_out(total, fraction)
    assert (len(train), len(validation)) == (total - count, count)
    assert trained_on(total, fraction) == train
    assert sorted(ids_of(train) + ids_of(validation)) == list(range(total))


@pytest.mark.parametrize("total", [20, 10_000])
def test_they_are_slices_of_one_permutation(total: int) -> None:
    _, validation = held_out(total, 0.1)
    whole = [permuted_by_hand(i, total, 0, 0, "selection") for i in range(total)]
    assert ids_of(validation) == whole[total - total // 10 :]
    assert ids_of(validation.first(1)) == whole[total - total // 10 : total - total // 10 + 1]
    assert len(validation.first(total)) == total // 10


def test_of_a_thousand_million_samples_one_is_found_at_once() -> None:
    train, validation = held_out(10**9, 0.1)
    assert (len(train), len(validation)) == (900_000_000, 100_000_000)
    assert validation.ids(np.array([7])).tolist() == [permuted_by_hand(900_000_007, 10**9, 0, 0, "selection")]


def test_places_outside_the_set_are_refused() -> None:
    with pytest.raises(ValueError, match=r"places \[3, 11\) do not lie in a set of 10 samples"):
        Selection(10, 3, 11)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("make", [in_memory, OneByOne, Torch])
def test_evaluation_reads_what_is_chosen_once_whatever_the_ranks(make: Any, workers: int) -> None:
    chosen = held_out(40, 0.3)[1]
    for size in (1, 3) if workers == 0 else (2,):
        seen: list[int] = []
        for rank in range(size):
            for micro in evaluation_batches(make(40), rank=rank, size=size, batch=3, chosen=chosen, workers=workers):
                assert micro.tensors[0].flatten().tolist() == [10.0 * id for id in micro.ids]
                seen += micro.ids.tolist()
        assert seen == ids_of(chosen)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("make", [in_memory, OneByOne, Torch])
def test_training_visits_what_is_chosen_under_its_own_ids(make: Any, workers: int) -> None:
    chosen = held_out(40, 0.3)[0]
    loader = Loader(
        make(40), GlobalShuffle(28, 5, chosen), rank=0, size=1, batch_size=5, stop_samples=56, workers=workers
    )  # fmt: skip
    epochs: list[list[int]] = [[], []]
    for batch in loader:
        epochs[batch.epoch] += batch.global_ids.tolist()
        assert batch.tensors[0].flatten().tolist() == [10.0 * id for id in batch.ids]
    assert sorted(epochs[0]) == sorted(epochs[1]) == sorted(ids_of(chosen))
    assert epochs[0] != epochs[1]


def test_an_order_for_another_part_of_the_set_is_refused() -> None:
    with pytest.raises(InputError, match="the dataset has 40 samples but the order is over 50"):
        Loader(in_memory(40), GlobalShuffle(28, 5, Selection(50, 0, 28)), rank=0, size=1, batch_size=5)


def test_partners_of_mixed_images_are_never_held_out() -> None:
    train, validation = held_out(60, 0.5)
    for mixed in (
        MixedInMemory(in_memory(60), MixSettings(mixup=1.0), 3, train),
        MixedPerSample(OneByOne(60), MixSettings(mixup=1.0), 3, train),
    ):
        partners = np.concatenate([mixed.draws(np.arange(60), epoch)[0] for epoch in range(20)])
        assert set(partners.tolist()) == set(ids_of(train))
        assert not set(partners.tolist()) & set(ids_of(validation))


def test_evaluation_sees_samples_neither_mixed_nor_augmented() -> None:
    data = in_memory(6)
    augmented = Augmented(data, [RandomFlip()], 1)
    assert plain(data) is data
    assert plain(augmented) is data
    assert plain(MixedInMemory(augmented, MixSettings(mixup=1.0), 3)) is data
    one_by_one = OneByOne(6)
    assert plain(MixedPerSample(one_by_one, MixSettings(mixup=1.0), 3)) is one_by_one


def test_photographs_are_evaluated_without_random_crops(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image", reason="needs Pillow, an optional dependency")
    (tmp_path / "ant").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    image.fromarray(pixels).save(tmp_path / "ant" / "a.png")
    training = ImageFolder(tmp_path, size=16, augment=True, seed=1)
    assert torch.equal(plain(training)[0][0], ImageFolder(tmp_path, size=16)[0][0])
    assert not torch.equal(training[0][0], ImageFolder(tmp_path, size=16)[0][0])
    assert training.change != training.plain_change
