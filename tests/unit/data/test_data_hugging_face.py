"""Hugging Face data sets are read as they are: any format, many rows at once, transforms seeded sample by sample."""

from __future__ import annotations

import pickle
import random
from typing import Any

import numpy as np
import pytest
import torch

from disttrain.data import Loader, Sequential
from disttrain.data.dataset import dataset_fingerprint, read, reads_rows
from disttrain.errors import DataError

datasets = pytest.importorskip("datasets", reason="needs Hugging Face datasets, an optional dependency")


def numbers(count: int = 24) -> Any:
    columns = {"ids": [[i, i + 1] for i in range(count)], "x": [i / 2 for i in range(count)], "name": ["a"] * count}
    return datasets.Dataset.from_dict(columns)


@pytest.mark.parametrize("kind", [None, "torch", "numpy"])
def test_any_format_is_read_many_rows_at_once(kind: str | None) -> None:
    dataset = numbers().remove_columns("name").with_format(kind)
    assert reads_rows(dataset)
    batch = read(dataset, 0, np.array([5, 2]), seed=0)
    assert batch["ids"].tolist() == [[5, 6], [2, 3]]
    assert batch["x"].tolist() == [2.5, 1.0]
    assert (batch["ids"].dtype, batch["x"].dtype) == (torch.int64, torch.float32)


def jitter(rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
    return {"x": [x + random.random() + float(np.random.rand()) + torch.rand(2) for x in rows["x"]]}


@pytest.mark.parametrize(("size", "workers"), [(1, 1), (2, 0)])
def test_a_transform_draws_for_each_sample_by_itself(size: int, workers: int) -> None:
    dataset = numbers().with_transform(jitter)

    def draws(size: int, workers: int, batch: int) -> dict[int, list[float]]:
        return {
            id: row.tolist()
            for rank in range(size)
            for one in Loader(
                dataset, Sequential(24), rank=rank, size=size, batch_size=batch, stop_samples=24, workers=workers
            )
            for id, row in zip(one.ids.tolist(), one.tensors["x"], strict=True)
        }

    assert not reads_rows(dataset)
    alone = draws(1, 0, 24)
    assert len({str(row) for row in alone.values()}) == 24
    assert draws(size, workers, 10) == alone


def test_what_it_consists_of_is_the_same_in_every_process() -> None:
    assert dataset_fingerprint(numbers()) == dataset_fingerprint(pickle.loads(pickle.dumps(numbers())))
    assert dataset_fingerprint(numbers()) != dataset_fingerprint(numbers().map(lambda row: {"x": row["x"] + 1}))


def test_a_column_of_text_is_named() -> None:
    with pytest.raises(DataError, match=r"sample 3: field name is a str; .*leave it out"):
        read(numbers(), 0, np.array([3, 4]), seed=0)
