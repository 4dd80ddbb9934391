"""What a task of one's own inherits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from disttrain.data import ArrayDataset
from disttrain.data.dataset import Dataset
from disttrain.tasks.base import Sizes, Task


class Small(Task):
    """Whatever two datasets; the loss is the model's output."""

    def __init__(self, train: Dataset, test: Dataset) -> None:
        self.train, self.test = train, test

    def sizes(self) -> Sizes:
        return Sizes(len(self.train), len(self.test))

    def train_dataset(self) -> Dataset:
        return self.train

    def test_dataset(self) -> Dataset:
        return self.test

    def losses(self, model: nn.Module, tensors: Sequence[Tensor]) -> Tensor:
        return model(tensors[0])

    def evaluate(self, model: nn.Module, tensors: Sequence[Tensor]) -> dict[str, Tensor]:
        return {"loss": self.losses(model, tensors).sum()}

    def summarise(self, totals: Mapping[str, float]) -> dict[str, float]:
        return dict(totals)


class Plain:
    """A torch dataset without a fingerprint."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: int) -> tuple[np.float64, int]:
        return self.values[index], index % 3


class InMemoryPlain(Plain):
    def gather(self, ids: np.ndarray, epoch: int) -> tuple[Tensor, ...]:
        return (torch.from_numpy(self.values[ids]),)


class Named(Plain):
    def fingerprint(self) -> str:
        return "the same"


def fingerprint(train: Dataset, test: Dataset | None = None) -> str:
    return Small(train, test if test is not None else Plain(np.zeros(3))).fingerprint()


@pytest.mark.parametrize("kind", [Plain, InMemoryPlain])
def test_fingerprint_of_data_without_one_of_their_own(kind: type[Plain]) -> None:
    values = np.linspace(0, 1, 1000)
    before = fingerprint(kind(values))
    assert before == fingerprint(kind(values.copy()))
    assert before != fingerprint(kind(values[:999]))
    assert before != fingerprint(kind(values[::-1].copy()))
    assert before != fingerprint(kind(values), kind(values))
    assert before != fingerprint(kind(values.astype(np.float32)))
    last = values.copy()
    last[-1] += 1
    assert before != fingerprint(kind(last))


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9])
@pytest.mark.parametrize("kind", [Plain, InMemoryPlain])
def test_fingerprint_of_few_samples(kind: type[Plain], size: int) -> None:
    assert fingerprint(kind(np.ones(size))) != fingerprint(kind(np.ones(size + 1)))


def test_a_fingerprint_of_their_own_is_what_counts() -> None:
    assert fingerprint(Named(np.zeros(5))) == fingerprint(Named(np.ones(6)))
    tensor = torch.arange(10.0)
    assert fingerprint(ArrayDataset(tensor)) != fingerprint(ArrayDataset(tensor.flip(0)))


def test_defaults() -> None:
    task = Small(Plain(np.zeros(4)), Plain(np.zeros(2)))
    assert task.higher_is_better("accuracy")
    assert not task.higher_is_better("loss")
    assert not task.higher_is_better("perplexity")
    assert task.model_hints() == {}
    x, y = task.prepare((torch.zeros(3), torch.zeros(3, dtype=torch.int64)), torch.float64)
    assert (x.dtype, y.dtype) == (torch.float64, torch.int64)


def test_items() -> None:
    task = Small(Plain(np.zeros(4)), Plain(np.zeros(2)))
    assert task.count_items((torch.zeros(3, 7),)) == 3
    task.items_per_sample = 7
    assert task.count_items((torch.zeros(3, 7),)) == 21
    task.items_per_sample = None
    with pytest.raises(NotImplementedError, match=r"Small: items_per_sample is None, so it needs count_items\(\)"):
        task.count_items((torch.zeros(3, 7),))
