"""Made-up samples: no reading and no decoding, so that a benchmark measures the rest."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from disttrain.data.dataset import Dataset
from disttrain.data.randomness import bits
from disttrain.tasks.base import Sizes
from disttrain.tasks.classification import Classification

POOL = 256
"""Different samples; larger sets repeat them, because memory is not what is to be measured."""


class Synthetic(Classification):
    """Noise of mean 0 and variance 1 to which the label adds from -1 to 1, so that a model has something to learn.

    Sample i is a function of (set, i) alone, the same in every run and on every machine.

    Args:
        shape: of one sample.
        classes: number of labels.
        train_samples, test_samples: sizes of the two sets.
    """

    def __init__(
        self,
        shape: Sequence[int] = (3, 224, 224),
        classes: int = 1000,
        train_samples: int = 8192,
        test_samples: int = 1024,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(label_smoothing)
        self.in_shape = tuple(shape)
        self.num_classes = classes
        self._sizes = Sizes(train_samples, test_samples)
        photographs = len(self.in_shape) == 3 and self.in_shape[0] == 3
        self.default_model: tuple[str, Mapping[str, Any]] = ("resnet50" if photographs else "mlp", {})

    def sizes(self) -> Sizes:
        return self._sizes

    def load(self) -> tuple[Dataset, Dataset]:
        generator = torch.Generator().manual_seed(0)
        # Uniform, because torch's normal numbers differ in their last bits between processors.
        pool = (torch.rand(POOL, *self.in_shape, generator=generator) - 0.5) * 12**0.5
        labels = torch.arange(POOL) * max(self.num_classes // POOL, 1) % self.num_classes
        pool += (2 * labels / self.num_classes - 1).view(-1, *[1] * len(self.in_shape))
        return _FromPool(pool, labels, self._sizes.train, "train"), _FromPool(pool, labels, self._sizes.test, "test")


class _FromPool:
    """``size`` samples, each drawn from a small pool by its id."""

    rowwise = True

    def __init__(self, pool: Tensor, labels: Tensor, size: int, name: str) -> None:
        self.pool, self.labels, self.size, self.name = pool, labels, size, name

    def __len__(self) -> int:
        return self.size

    def gather(self, ids: NDArray[np.int64], epoch: int = 0) -> tuple[Tensor, Tensor]:
        """The samples ``ids`` (n,): inputs (n, *shape) and labels (n,)."""
        drawn = bits(0, 0, ids, stream=f"synthetic {self.name}")[:, 0] % np.uint64(len(self.labels))
        index = torch.from_numpy(drawn.astype(np.int64))
        return self.pool.index_select(0, index), self.labels.index_select(0, index)

    def fingerprint(self) -> str:
        """What the samples follow from."""
        return hashlib.sha256(f"{self.name} {self.size} {tuple(self.pool.shape)}".encode()).hexdigest()
