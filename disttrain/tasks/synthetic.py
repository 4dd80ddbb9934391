"""Made-up images: no reading, no decoding, so that a benchmark measures the rest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from disttrain.data.arrays import ArrayDataset
from disttrain.data.dataset import Dataset
from disttrain.data.randomness import uniform
from disttrain.tasks.base import Sizes
from disttrain.tasks.classification import Classification

POOL = 256
"""Different images; a larger set repeats them, because memory is not what is to be measured."""


class Synthetic(Classification):
    """Noise in which the label shows as a brighter mean, so that a model has something to learn.

    Args:
        shape: of one sample.
        classes, train_samples, test_samples: how many of each.
    """

    static_graph = True

    def __init__(
        self,
        shape: Sequence[int] = (3, 224, 224),
        classes: int = 1000,
        train_samples: int = 8192,
        test_samples: int = 1024,
        seed: int = 0,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(label_smoothing)
        self.in_shape = tuple(shape)
        self.num_classes = classes
        self.default_model = ("resnet50", {}) if len(shape) == 3 and shape[0] == 3 else ("mlp", {})
        self.seed = seed
        self._sizes = Sizes(train_samples, test_samples)

    def sizes(self) -> Sizes:
        return self._sizes

    def load(self) -> tuple[Dataset, Dataset]:
        labels = torch.arange(max(POOL, self.num_classes)) % self.num_classes
        generator = torch.Generator().manual_seed(self.seed)
        pool = torch.randn(POOL, *self.in_shape, generator=generator)
        pool += (labels[:POOL].view(-1, *[1] * len(self.in_shape)) / self.num_classes - 0.5) * 2
        return tuple(
            _Repeated(pool, labels[:POOL], size, i) for i, size in enumerate((self._sizes.train, self._sizes.test))
        )  # type: ignore[return-value]


class _Repeated(ArrayDataset):
    """``size`` samples drawn from a small pool, by sample id."""

    def __init__(self, images: torch.Tensor, labels: torch.Tensor, size: int, stream: int) -> None:
        super().__init__(images, labels)
        draws = uniform(0, 0, np.arange(size), stream=f"synthetic {stream}")[:, 0]
        self._pool_ids = np.floor(draws * len(images)).astype(np.int64)

    def __len__(self) -> int:
        return len(self._pool_ids)

    def gather(self, ids: np.ndarray, epoch: int = 0) -> tuple[torch.Tensor, ...]:
        return super().gather(self._pool_ids[ids], epoch)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, ...]:
        return super().__getitem__(int(self._pool_ids[index]))
