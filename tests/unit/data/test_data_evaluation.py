"""Evaluation reads every sample once, whatever the ranks."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from disttrain.data.arrays import ArrayDataset
from disttrain.data.evaluation import evaluation_batches
from disttrain.errors import InputError


@given(st.integers(0, 50), st.integers(1, 7), st.integers(1, 20))
def test_every_sample_once(n: int, size: int, batch: int) -> None:
    dataset = ArrayDataset(torch.arange(n) * 10)
    seen: list[int] = []
    for rank in range(size):
        for micro in evaluation_batches(dataset, rank=rank, size=size, batch=batch):
            assert micro.weight == 1.0
            assert 1 <= len(micro.ids) <= batch
            assert micro.tensors[0].tolist() == [10 * id for id in micro.ids]
            seen += micro.ids.tolist()
    assert seen == list(range(n))


def test_arguments_out_of_range() -> None:
    dataset = ArrayDataset(torch.arange(3))
    with pytest.raises(InputError, match="the evaluation batch is 0"):
        evaluation_batches(dataset, rank=0, size=1, batch=0)
    with pytest.raises(InputError, match="rank is 1 of 1"):
        evaluation_batches(dataset, rank=1, size=1, batch=1)
