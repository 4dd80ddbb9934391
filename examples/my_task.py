"""A task of your own, complete: regression on Friedman's function (Friedman 1991, "Multivariate adaptive regression
splines", section 4.3), with the root mean square error as its metric.

In a recipe, with this directory's parent as the current directory::

    task: {name: "examples.my_task:Friedman", noise: 0.5}
    model: {name: mlp, hidden: [128, 128]}      # or "examples.my_task:Bumps", or no model at all: the task's default
    batch: {global: 128}
    epochs: 40
    optimizer: {name: adamw, lr: 2.0e-2}
    schedule: {warmup: {epochs: 1}, decay: {kind: cosine}}

This ends at an error of about 0.6, of which 0.5 is the noise. The data are made up from the sample ids, so every rank has the
same; with data of your own, read a file in place of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from disttrain.data import ArrayDataset
from disttrain.data.randomness import normal, uniform
from disttrain.tasks.base import Sizes, Task


class Friedman(Task):
    """``y = 10 sin(pi x0 x1) + 20 (x2 - 1/2)^2 + 10 x3 + 5 x4 + noise``; five more inputs mean nothing.

    Args:
        noise: standard deviation of what no model can know.
        train_samples, test_samples: sizes of the two sets.
    """

    metric = "rmse"  # decides which checkpoint is the best
    metric_names = ("loss", "rmse")  # what summarise() gives
    items_per_sample = 1  # one loss for each sample
    static_graph = True  # every step uses all parameters in the same way
    default_model = ("mlp", {"hidden": [64, 64]})  # when the recipe names none

    def __init__(self, noise: float = 1.0, train_samples: int = 4096, test_samples: int = 1024) -> None:
        self.noise = noise
        self.counts = Sizes(train_samples, test_samples)

    def sizes(self) -> Sizes:
        return self.counts

    @cached_property
    def datasets(self) -> tuple[ArrayDataset, ArrayDataset]:
        """The train and the test set: inputs (n, 10) and outputs (n,) each."""
        ids = np.arange(self.counts.train + self.counts.test)
        x = uniform(0, 0, ids, stream="inputs", draws=10)
        y = 10 * np.sin(np.pi * x[:, 0] * x[:, 1]) + 20 * (x[:, 2] - 0.5) ** 2 + 10 * x[:, 3] + 5 * x[:, 4]
        y += self.noise * normal(0, 0, ids, stream="noise")[:, 0]
        inputs, outputs = torch.from_numpy(x).float(), torch.from_numpy(y).float()
        cut = self.counts.train
        return ArrayDataset(inputs[:cut], outputs[:cut]), ArrayDataset(inputs[cut:], outputs[cut:])

    def train_dataset(self) -> ArrayDataset:
        return self.datasets[0]

    def test_dataset(self) -> ArrayDataset:
        return self.datasets[1]

    def model_hints(self) -> Mapping[str, object]:
        return {"in_shape": (10,), "num_classes": 1}

    def losses(self, model: nn.Module, tensors: Sequence[Tensor]) -> Tensor:
        x, y = tensors
        losses: Tensor = (model(x).squeeze(-1) - y).square()
        return losses  # one for each sample; disttrain takes the mean over all ranks

    def evaluate(self, model: nn.Module, tensors: Sequence[Tensor]) -> dict[str, Tensor]:
        losses = self.losses(model, tensors)
        return {"square": losses.double().sum(), "samples": torch.tensor(len(losses))}  # sums, not means

    def summarise(self, totals: Mapping[str, float]) -> dict[str, float]:
        loss = totals["square"] / totals["samples"]
        return {"loss": loss, "rmse": loss**0.5}

    def higher_is_better(self, metric: str) -> bool:
        return False


class Bumps(nn.Module):
    """A model of your own: a weighted sum of Gaussian bumps. It gets those of the task's hints that it names.

    Args:
        in_shape: of one sample.
        bumps: how many.
    """

    def __init__(self, in_shape: Sequence[int], bumps: int = 256) -> None:
        super().__init__()
        self.centres = nn.Parameter(torch.rand(bumps, *in_shape))
        self.narrowness = nn.Parameter(torch.ones(bumps, *in_shape))  # 0: an input that does not count
        self.heights = nn.Linear(bumps, 1)

    def forward(self, x: Tensor) -> Tensor:
        distance = ((x[:, None] - self.centres) * self.narrowness).square().sum(-1)
        total: Tensor = self.heights((-distance).exp())
        return total
