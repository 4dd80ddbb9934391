"""Classification: cross-entropy per sample, accuracy by counts."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import cache, cached_property
from typing import Any

import torch
from torch import Tensor, nn

from disttrain.data.dataset import Dataset
from disttrain.tasks.base import Sizes, Task
from disttrain.tasks.cross_entropy import cross_entropy, rates, totals


class Classification(Task):
    """Inputs ``(samples, *in_shape)`` and labels ``(samples,)`` int64.

    Args:
        label_smoothing: share of the target spread evenly over all classes, in training only.

    Attributes:
        in_shape, num_classes: shape of a sample, and number of classes.
        mean, std: of the train set's pixels, taken as numbers from 0 to 1, per channel. Images of bytes are normalised by
            them on the device; inputs of floats are taken as they are.
    """

    static_graph = True
    in_shape: tuple[int, ...]
    num_classes: int
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def __init__(self, label_smoothing: float = 0.0) -> None:
        self.label_smoothing = label_smoothing

    @abstractmethod
    def load(self) -> tuple[Dataset, Dataset]:
        """Read the train and the test set."""

    @cached_property
    def _datasets(self) -> tuple[Dataset, Dataset]:
        return self.load()

    def train_dataset(self) -> Dataset:
        return self._datasets[0]

    def test_dataset(self) -> Dataset:
        return self._datasets[1]

    def sizes(self) -> Sizes:
        return Sizes(*(len(dataset) for dataset in self._datasets))

    def model_hints(self) -> Mapping[str, Any]:
        return {"in_shape": self.in_shape, "num_classes": self.num_classes}

    def prepare(self, tensors: Sequence[Tensor], dtype: torch.dtype) -> Sequence[Tensor]:
        inputs, labels = tensors
        if inputs.dtype != torch.uint8:
            return inputs.to(dtype), labels
        scale, shift = _scale_and_shift(self.mean, self.std, inputs.dim(), inputs.device, dtype)
        return torch.addcmul(shift, inputs.to(dtype), scale), labels

    def losses(self, model: nn.Module, tensors: Sequence[Tensor]) -> Tensor:
        inputs, labels = tensors
        return cross_entropy(model(inputs), labels, self.label_smoothing)

    def evaluate(self, model: nn.Module, tensors: Sequence[Tensor]) -> dict[str, Tensor]:
        inputs, labels = tensors
        return totals(model(inputs), labels)

    def summarise(self, totals: Mapping[str, float]) -> dict[str, float]:
        return rates(totals)


@cache
def _scale_and_shift(
    mean: tuple[float, ...], std: tuple[float, ...], dims: int, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """``(x / 255 - mean) / std`` as one product and one sum, over ``(samples, channels, ...)`` of ``dims`` dimensions.

    Kept, because making them anew would wait for a GPU in every step.
    """
    # The first call may come from an evaluation, and tensors of inference mode are not for training.
    with torch.inference_mode(False):
        m, s = (torch.tensor(values, dtype=torch.float64).view(-1, *[1] * (dims - 2)) for values in (mean, std))
        return (1 / (255 * s)).to(device, dtype), (-m / s).to(device, dtype)
