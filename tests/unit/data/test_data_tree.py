"""Samples of any structure become batches of the same structure, by stacking or by a function of one's own."""

from __future__ import annotations

import random
from collections import UserDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from disttrain.data import ArrayDataset, GlobalShuffle, Loader, NumpyDataset, Sequential, loader, stack
from disttrain.data.dataset import dataset_fingerprint
from disttrain.data.evaluation import evaluation_batches
from disttrain.data.tree import described, leaves, map_leaves, split
from disttrain.data.usable import require_usable
from disttrain.engine.world import World
from disttrain.errors import DataError, InputError
from disttrain.tasks.make import collate_of
from disttrain.tasks.supervised import Supervised


class Point(NamedTuple):
    x: Any
    y: Any


@dataclass(frozen=True, slots=True)
class Labelled:
    image: Any
    label: Any


def nested(i: int) -> dict[str, Any]:
    return {
        "pair": (torch.full((2,), i), np.float32(i)),
        "point": Point(i, [1.0 * i, 2.0]),
        "labelled": Labelled(np.full((1, 2), i), bool(i % 2)),
        "list": [torch.tensor(i), {"deep": i}],
    }


def test_a_batch_has_the_structure_of_its_samples() -> None:
    batch = stack([nested(0), nested(1), nested(2)])
    assert list(batch) == ["pair", "point", "labelled", "list"]
    assert isinstance(batch["pair"], tuple)
    assert isinstance(batch["point"], Point)
    assert isinstance(batch["labelled"], Labelled)
    assert batch["pair"][0].tolist() == [[0, 0], [1, 1], [2, 2]]
    assert batch["point"].y.tolist() == [[0.0, 2.0], [1.0, 2.0], [2.0, 2.0]]
    assert batch["labelled"].label.tolist() == [False, True, False]
    assert batch["list"][1]["deep"].tolist() == [0, 1, 2]
    assert [leaf.dtype for leaf in leaves(batch)] == [
        *(torch.int64, torch.float32, torch.int64, torch.float32, torch.int64, torch.bool, torch.int64, torch.int64),
    ]


def test_other_mappings_become_dicts_in_the_order_of_the_first_sample() -> None:
    batch = stack([UserDict(a=1, b=2), {"b": 4, "a": 3}])
    assert type(batch) is dict
    assert {name: value.tolist() for name, value in batch.items()} == {"a": [1, 3], "b": [2, 4]}


@pytest.mark.parametrize("sample", [torch.ones(2), 3, np.ones(2)], ids=["tensor", "number", "array"])
def test_a_bare_sample_makes_a_bare_batch(sample: Any) -> None:
    batch = stack([sample, sample])
    assert isinstance(batch, Tensor)
    assert len(batch) == 2


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ([{"a": 1}, {"b": 1}], "sample 1 has the fields b, sample 0 has the fields a"),
        ([(1, 2), {"a": 1}], "sample 1 is a dict, sample 0 has a tuple"),
        ([{"a": {"b": "x"}}], "sample 0: field a.b is a str; expected .* leave it out, or give the task a collate"),
        ([{"ids": [1, 2]}, {"ids": [1]}], r"sample 1: field ids is torch.int64 \(1,\), .* give the task a collate\(\)"),
        ([{"ids": [[1, 2], [1]]}], "sample 0: field ids is a list that makes no array"),
        ([{"words": ["a", "b"]}], "sample 0: field words is a list that makes no array"),
        ([{"label": None}], "sample 0: field label is None; .*a missing value"),
        ([torch.ones(2), torch.ones(3)], r"sample 1 is torch.float32 \(3,\), sample 0 has torch.float32 \(2,\)"),
    ],
)
def test_samples_that_do_not_fit_are_named(samples: list[Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        stack(samples)


def test_a_picture_needs_a_transform() -> None:
    Image = pytest.importorskip("PIL.Image", reason="needs Pillow, an optional dependency")
    with pytest.raises(DataError, match=r"sample 0: field 0 is an Image; .*add a transform that makes one"):
        stack([(Image.new("RGB", (2, 2)), 1)])


def test_batches_are_mapped_split_and_described() -> None:
    batch = stack([nested(i) for i in range(3)])
    doubled = map_leaves(lambda leaf: leaf * 2, batch)
    assert doubled["labelled"].image[:, 0, 0].tolist() == [0, 2, 4]
    first, second = split(batch, [1, 2])
    assert first["point"].x.tolist() == [0]
    assert second["list"][1]["deep"].tolist() == [1, 2]
    assert isinstance(second["labelled"], Labelled)
    assert described({"a": torch.ones(2, 3), "b": (torch.ones(2),)}) == "a dict: a float32 (2, 3), b.0 float32 (2,)"


class Words:
    """Texts of unequal length."""

    def __len__(self) -> int:
        return 20

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"ids": list(range(index % 5 + 1)), "name": f"text {index}"}


def padded(samples: list[Any]) -> dict[str, Tensor]:
    rows = [torch.tensor(sample["ids"]) + 1 for sample in samples]
    return {
        "ids": torch.nn.utils.rnn.pad_sequence(rows, batch_first=True),
        "length": torch.tensor([len(r) for r in rows]),
    }


@pytest.mark.parametrize("workers", [0, 1])
def test_a_function_of_ones_own_makes_each_micro_batch(workers: int) -> None:
    world = World(0, 1, 0, 1, 0, torch.device("cpu"))
    batches = list(loader(Words(), world, global_batch=10, per_rank_max=5, workers=workers, collate=padded))
    for micro in (micro for batch in batches for micro in batch):
        lengths = [int(id) % 5 + 1 for id in micro.ids]
        assert micro.tensors["length"].tolist() == lengths
        assert micro.tensors["ids"].shape == (5, max(lengths))
    assert sum(len(batch.ids) for batch in batches) == 20
    evaluated = list(evaluation_batches(Words(), rank=0, size=1, batch=8, workers=workers, collate=padded))
    assert [len(micro.tensors["ids"]) for micro in evaluated] == [8, 8, 4]


WRONG: dict[str, tuple[Callable[[list[Any]], Any], str]] = {
    "draws": (lambda samples: torch.rand(len(samples)), r"collate\(\) drew random numbers"),
    "python": (lambda samples: torch.tensor(random.random()), r"collate\(\) drew random numbers"),
    "numpy": (lambda samples: torch.tensor(np.random.rand()), r"collate\(\) drew random numbers"),
    "text": (lambda samples: {"x": [s["name"] for s in samples]}, r"collate\(\) gave a str as field x.0"),
    "lists": (lambda samples: {"x": {"y": [[1]]}}, r"collate\(\) gave an int as field x.y.0.0"),
    "nothing": (lambda samples: {}, r"collate\(\) gave an empty dict"),
    "None": (lambda samples: None, r"collate\(\) gave None; expected tensors"),
    "fails": (
        lambda samples: samples[0]["nothing"],
        r"(?s)collate\(\) failed for samples 0, 1, 2, 3, ...: KeyError: 'nothing'",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_a_function_of_ones_own_may_not_do(kind: str) -> None:
    collate, message = WRONG[kind]
    with pytest.raises(DataError, match=message):
        list(Loader(Words(), Sequential(20), rank=0, size=1, batch_size=5, stop_samples=20, collate=collate))


def test_it_is_not_passed_over() -> None:
    stream = Loader(ArrayDataset(torch.ones(4)), Sequential(4), rank=0, size=1, batch_size=2, collate=padded)
    with pytest.raises(InputError, match=r"collate\(\) is not used for ArrayDataset"):
        next(iter(stream))


def test_a_task_without_one_stacks() -> None:
    assert collate_of(Supervised([1], [1], lambda outputs, targets: outputs)) is stack
    assert collate_of(Supervised([1], [1], lambda outputs, targets: outputs, collate=padded)) is padded


def test_texts_have_a_fingerprint() -> None:
    class Others(Words):
        def __getitem__(self, index: int) -> dict[str, Any]:
            return super().__getitem__(index) | {"name": "another"}

    assert dataset_fingerprint(Words()) == dataset_fingerprint(Words())
    assert dataset_fingerprint(Words()) != dataset_fingerprint(Others())


class RowsAtOnce:
    """Reads many samples at once, and says so or not."""

    def __init__(self, rowwise: bool) -> None:
        self.rowwise, self.calls = rowwise, 0

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> tuple[float, int]:
        return random.random(), index

    def __getitems__(self, indices: list[int]) -> list[tuple[float, int]]:
        self.calls += 1
        return [(0.5, index) for index in indices]


@pytest.mark.parametrize("rowwise", [True, False])
def test_many_are_read_at_once_only_where_the_set_says_that_it_may_be(rowwise: bool) -> None:
    dataset = RowsAtOnce(rowwise)
    (batch,) = Loader(dataset, Sequential(6), rank=0, size=1, batch_size=6, stop_samples=6)
    assert dataset.calls == rowwise
    assert batch.tensors[1].tolist() == list(range(6))


def test_arrays_of_numpy(tmp_path: Path) -> None:
    x, y = np.arange(24, dtype=np.float32).reshape(8, 3), np.arange(8)
    np.save(tmp_path / "x.npy", x)
    pairs, dicts = NumpyDataset(tmp_path / "x.npy", y), NumpyDataset(x=str(tmp_path / "x.npy"), y=y)
    assert isinstance(pairs.arrays["0"], np.memmap)
    streams = [Loader(d, GlobalShuffle(8, 1), rank=0, size=1, batch_size=4, per_rank_max=2) for d in (pairs, dicts)]
    for a, b in zip(next(iter(streams[0])), next(iter(streams[1])), strict=True):
        assert a.tensors[0].tolist() == b.tensors["x"].tolist() == x[a.ids].tolist()
        assert a.tensors[1].tolist() == b.tensors["y"].tolist() == a.ids.tolist()
    assert dicts[3]["x"].tolist() == x[3].tolist()
    assert pairs.fingerprint() == NumpyDataset(x, y).fingerprint()
    x[5, 1] += 1
    assert pairs.fingerprint() != NumpyDataset(x, y).fingerprint()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: NumpyDataset(), "needs arrays or paths"),
        (lambda path: NumpyDataset(np.ones(3), np.ones(2)), "hold .* samples; expected equal numbers"),
        (lambda path: NumpyDataset(path / "no.npy"), "no.npy: No such file"),
        (lambda path: NumpyDataset(np.array(["a"])), "array 0: holds <U1; expected numbers"),
        (lambda path: NumpyDataset(x=np.array(1.0)), "array x: holds a single number"),
    ],
)
def test_arrays_that_cannot_be_used(make: Callable[[Path], Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        make(tmp_path)


class Stream(torch.utils.data.IterableDataset[int]):
    def __len__(self) -> int:
        return 3

    def __iter__(self) -> Iterator[int]:
        return iter(range(3))


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (Stream(), "is a Stream, which has no length or cannot read a sample by its number; .*streaming=False"),
        ((i for i in range(3)), "is a generator, which has no length"),
        (torch.utils.data.DataLoader([1, 2]), "is a DataLoader; expected the data set in it"),
        (torch.ones(3), "is a Tensor; expected a data set: disttrain.data.ArrayDataset"),
        (np.ones(3), "is an array; .*NumpyDataset"),
        ({"train": [1], "test": [2]}, "is a dict with train, test; expected one data set"),
        (None, "is None"),
    ],
    ids=["IterableDataset", "generator", "DataLoader", "tensor", "array", "splits", "None"],
)
def test_what_is_no_data_set_is_refused_in_one_line(dataset: Any, message: str) -> None:
    with pytest.raises(InputError, match=f"^it {message}") as found:
        require_usable(dataset, "it")
    assert "\n" not in str(found.value)


def test_a_number_beyond_int64_is_named() -> None:
    assert stack([{"id": -(2**63)}, {"id": 2**63 - 1}])["id"].tolist() == [-(2**63), 2**63 - 1]
    with pytest.raises(DataError, match=r"sample 7: field id is 9223372036854775808, which is beyond int64"):
        stack([{"id": 1}, {"id": 2**63}], [3, 7])
