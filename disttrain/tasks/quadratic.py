"""A noisy quadratic: a task small enough to be solved on paper, to try on it what measures batch sizes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from disttrain.data.arrays import ArrayDataset
from disttrain.data.dataset import Dataset
from disttrain.data.randomness import normal
from disttrain.errors import InputError
from disttrain.tasks.base import Sizes, Task

HELD_OUT = 8
"""Samples of the validation and of the test set: without noise they are all alike, and their mean loss is exact."""
Floats = NDArray[np.float64]


class Point(nn.Module):
    """A model that is one vector ``w``: what it says of every sample is where it stands.

    Args:
        start: ``(dimension,)`` where it begins.

    Shape: ``(batch, dimension)`` to ``(batch, dimension)``.
    """

    def __init__(self, start: Tensor) -> None:
        super().__init__()
        self.w = nn.Parameter(start.to(torch.get_default_dtype(), copy=True))

    def forward(self, x: Tensor) -> Tensor:
        return self.w.expand(len(x), -1)


class NoisyQuadratic(Task):
    """``w' H w / 2 + w' x`` is the loss of a sample ``x`` at the weights ``w`` (Zhang et al. 2019, arXiv:1907.04164, section 3).

    ``H`` is diagonal, ``curvature * j ** -exponent`` for ``j`` from 1 to ``dimension``. The samples of the train set are normal
    with variance ``noise * h ** noise_exponent`` in the direction of curvature ``h``. Sample ``2 i`` is a function of
    (``data_seed``, ``i``) and sample ``2 i + 1`` is its negative, so that their mean is zero and the loss of the whole set is
    ``w' H w / 2`` exactly. The validation and the test set are samples of zeros: their loss is that too.

    The model is the vector ``w``, which begins with ``start`` in every direction. :mod:`disttrain.study.exact` has what a
    training of it comes to, on average over all orders.

    Args:
        train_samples: an even number.

    Raises:
        InputError: it is odd.
    """

    metric_names = ("loss",)
    static_graph = True
    default_model: tuple[str, Mapping[str, Any]] = ("disttrain.tasks.quadratic:Point", {})

    def __init__(
        self,
        dimension: int = 32,
        curvature: float = 1.0,
        exponent: float = 1.0,
        noise: float = 1.0,
        noise_exponent: float = 1.0,
        start: float = 1.0,
        train_samples: int = 65536,
        data_seed: int = 0,
    ) -> None:
        if train_samples % 2:
            raise InputError(f"task.train_samples is {train_samples}; samples come in pairs: choose an even number")
        self.curvature: Floats = curvature * np.arange(1.0, dimension + 1.0) ** -exponent
        self.variance: Floats = noise * self.curvature**noise_exponent
        self.start: Floats = np.full(dimension, start)
        self._samples, self._seed = train_samples, data_seed

    def sizes(self) -> Sizes:
        return Sizes(self._samples, HELD_OUT, HELD_OUT)

    @cached_property
    def _train(self) -> Dataset:
        size = len(self.variance)
        ids = np.arange(self._samples // 2)
        half = normal(self._seed, 0, ids, stream="noisy quadratic", draws=size) * np.sqrt(self.variance)
        return ArrayDataset(torch.from_numpy(np.stack([half, -half], axis=1).reshape(-1, size)).float())

    @cached_property
    def _held_out(self) -> Dataset:
        return ArrayDataset(torch.zeros(HELD_OUT, len(self.variance)))

    def train_dataset(self) -> Dataset:
        return self._train

    def validation_dataset(self) -> Dataset:
        return self._held_out

    def test_dataset(self) -> Dataset:
        return self._held_out

    def losses(self, model: nn.Module, tensors: tuple[Tensor]) -> Tensor:
        w: Tensor = model(tensors[0])
        h = torch.from_numpy(self.curvature).to(w)
        return ((0.5 * h * w + tensors[0]) * w).sum(1)

    def model_hints(self) -> Mapping[str, Any]:
        return {"start": torch.from_numpy(self.start)}

    def fingerprint(self) -> str:
        """What the samples follow from."""
        parts = (self.curvature, self.variance, self._samples, self._seed)
        return hashlib.sha256(
            repr([p.tolist() if isinstance(p, np.ndarray) else p for p in parts]).encode()
        ).hexdigest()[:16]
