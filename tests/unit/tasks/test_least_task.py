"""The least that makes a task: two data sets and losses; metrics are means of what is given for each sample or item."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
import torch
from torch import Tensor, nn

from disttrain.data import ArrayDataset
from disttrain.tasks.base import Sizes, Task
from disttrain.tasks.terms import Losses

INPUTS = torch.arange(12.0).view(6, 2)


class Least(Task):
    def train_dataset(self) -> ArrayDataset:
        return ArrayDataset(INPUTS)

    def test_dataset(self) -> ArrayDataset:
        return ArrayDataset(INPUTS[:4])

    def losses(self, model: nn.Module, tensors: Sequence[Tensor]) -> Losses:
        return tensors[0].sum(1)


class Measured(Least):
    metric = "large"

    def metrics(self, model: nn.Module, tensors: Sequence[Tensor]) -> Mapping[str, Tensor]:
        return {"loss": self.losses(model, tensors), "large": tensors[0][:, 0] > 3}  # type: ignore[dict-item]


class Pixels(Least):
    items_per_sample = 2

    def losses(self, model: nn.Module, tensors: Sequence[Tensor]) -> Losses:
        return {"a": tensors[0], "b": 2 * tensors[0]}


def evaluated(task: Task, *batches: Tensor) -> dict[str, float]:
    totals: dict[str, float] = {}
    for batch in batches:
        for name, total in task.evaluate(nn.Identity(), [batch]).items():
            totals[name] = totals.get(name, 0.0) + float(total)
    return task.summarise(totals)


def test_the_least_task() -> None:
    task = Least()
    assert task.sizes() == Sizes(6, 4)
    assert task.metric == "loss"
    assert evaluated(task, INPUTS[:5], INPUTS[5:]) == {"loss": pytest.approx(float(INPUTS.sum(1).mean()))}


def test_metrics_are_means_over_samples_or_items() -> None:
    assert evaluated(Measured(), INPUTS[:1], INPUTS[1:])["large"] == pytest.approx(4 / 6)
    found = evaluated(Pixels(), INPUTS[:1], INPUTS[1:])
    mean = float(INPUTS.mean())
    assert found == {"loss": pytest.approx(3 * mean), "a": pytest.approx(mean), "b": pytest.approx(2 * mean)}
