"""Copies to a CUDA device that run ahead of the batch in use."""

from __future__ import annotations

import pytest
import torch
from data_cases import EpochAware

from disttrain.data import ArrayDataset, GlobalShuffle, Loader
from disttrain.data.dataset import Dataset

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("dataset", [ArrayDataset(torch.randn(500, 3, 32, 32), torch.arange(500)), EpochAware(40)])
def test_the_device_gets_what_the_cpu_gets(dataset: Dataset, workers: int) -> None:
    n = len(dataset)

    def batches(device: str | None) -> list[tuple[torch.Tensor, ...]]:
        stream = Loader(
            dataset,
            GlobalShuffle(n, 1),
            rank=0,
            size=1,
            batch_size=16,
            per_rank_max=5,
            stop_samples=2 * n,
            workers=workers,
            device=device,
        )
        found = []
        for batch in stream:
            for micro in batch:
                if device:
                    # Work that is still running when the next copies are issued.
                    torch.cuda._sleep(100_000)
                found.append(tuple(tensor * 1 for tensor in micro.tensors))
        return found

    expected = batches(None)
    delivered = batches("cuda")
    assert len(delivered) == len(expected)
    for ours, theirs in zip(delivered, expected, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            assert a.device.type == "cuda"
            assert torch.equal(a.cpu(), b)
