"""Reading samples one by one: the global generators, stacking, and errors that name the sample."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from data_cases import Noisy

from disttrain.data import GlobalShuffle, Loader, Sequential
from disttrain.errors import DataError


def test_random_transforms_of_others_depend_on_seed_epoch_and_id_only() -> None:
    def read(size: int, world: int, seed: int) -> dict[tuple[int, int], tuple[Any, ...]]:
        found = {}
        for rank in range(world):
            order = GlobalShuffle(12, 9)
            for batch in Loader(
                Noisy(12), order, rank=rank, size=world, batch_size=size, stop_samples=24, seed=seed, per_rank_max=2
            ):
                for micro in batch:
                    for i, id in enumerate(micro.ids.tolist()):
                        if micro.weight:
                            found[batch.epoch, id] = tuple(field[i].tolist() for field in micro.tensors)
        return found

    base = read(12, 1, seed=1)
    assert len(base) == len({str(value[:3]) for value in base.values()}) == 24
    assert read(5, 3, seed=1) == base
    assert read(12, 1, seed=2) != base


def test_reading_leaves_the_random_state_alone() -> None:
    def states() -> tuple[Any, ...]:
        return torch.get_rng_state().tolist(), random.getstate(), str(np.random.get_state())

    before = states()
    list(Loader(Noisy(4), Sequential(4), rank=0, size=1, batch_size=2, stop_samples=4))
    assert states() == before


class Listed:
    """A plain dataset of the given samples; an exception in the list is raised."""

    def __init__(self, *samples: Any) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Any:
        if isinstance(self.samples[index], Exception):
            raise self.samples[index]
        return self.samples[index]


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ([(1,), (2, 3)], "sample 1 has 2 fields, sample 0 has 1"),
        ([(torch.zeros(2),), (torch.zeros(3),)], r"sample 1: field 0 is torch.float32 \(3,\), sample 0 has"),
        ([(1, 1), (1, 1.0)], "sample 1: field 1 is torch.float32"),
        ([(1,), ("a",)], "sample 1: field 0 is a str; expected a tensor"),
        ([(1,), (np.array(["a"]),)], "sample 1: field 0 is a <U1 array"),
        ([(1,), {"x": 1}], "sample 1 is a dict, sample 0 has a tuple"),
        ([(1,), KeyError("k")], r"sample 1 could not be read in epoch 0: KeyError: 'k'\nTraceback"),
        ([(1,), DataError("a.png: damaged")], "^sample 1: a.png: damaged$"),
    ],
)
def test_row_28_samples_that_cannot_be_used_are_named(samples: list[Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        list(Loader(Listed(*samples), Sequential(2), rank=0, size=1, batch_size=2, stop_samples=2))


def test_every_kind_of_field_is_stacked() -> None:
    flipped = np.arange(3, dtype=np.int16)[::-1]
    frozen = np.ones(2)
    frozen.flags.writeable = False
    sample = (torch.ones(2, 2), flipped, frozen, np.float32(0.5), 3, 2.5, True)
    (batch,) = Loader(Listed(sample, list(sample)), Sequential(2), rank=0, size=1, batch_size=2, stop_samples=2)
    shapes = [(tensor.dtype, tuple(tensor.shape)) for tensor in batch.tensors]
    assert shapes == [
        (torch.float32, (2, 2, 2)),
        (torch.int16, (2, 3)),
        (torch.float64, (2, 2)),
        (torch.float32, (2,)),
        (torch.int64, (2,)),
        (torch.float32, (2,)),
        (torch.bool, (2,)),
    ]
    assert batch.tensors[1][0].tolist() == [2, 1, 0]
