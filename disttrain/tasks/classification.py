"""Classification: cross-entropy per sample, accuracy by counts."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from disttrain.data.dataset import Dataset
from disttrain.tasks.base import Sizes, Task


class Classification(Task):
    """Images ``(samples, channels, height, width)`` and labels ``(samples,)``.

    Args:
        label_smoothing: share of the target spread evenly over all classes, in training only (Szegedy et al. 2015,
            arXiv:1512.00567, section 7).

    Attributes:
        in_shape, num_classes: shape of a sample, and number of classes.
        mean, std: of the train set's pixels between 0 and 1, per channel; images of bytes are normalised by them on the
            device.
    """

    static_graph = True
    in_shape: tuple[int, ...]
    num_classes: int
    mean: Sequence[float] = (0.0,)
    std: Sequence[float] = (1.0,)

    def __init__(self, label_smoothing: float = 0.0) -> None:
        self.label_smoothing = label_smoothing

    @abstractmethod
    def load(self) -> tuple[Dataset, Dataset]:
        """The train and the test set."""

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
        images, labels = tensors
        if images.dtype == torch.uint8:
            scale, shift = self._normalisation(images.device, dtype)
            images = torch.addcmul(shift, images.to(dtype), scale)
        return images.to(dtype), labels

    def losses(self, model: nn.Module, tensors: Sequence[Tensor]) -> Tensor:
        images, labels = tensors
        return F.cross_entropy(model(images), labels, reduction="none", label_smoothing=self.label_smoothing)

    def evaluate(self, model: nn.Module, tensors: Sequence[Tensor]) -> dict[str, Tensor]:
        images, labels = tensors
        logits = model(images)
        return {
            "loss": F.cross_entropy(logits, labels, reduction="none").double().sum(),
            "correct": (logits.argmax(1) == labels).sum(),
            "samples": torch.tensor(len(labels)),
        }

    def summarise(self, totals: Mapping[str, float]) -> dict[str, float]:
        samples = totals["samples"]
        return {"loss": totals["loss"] / samples, "accuracy": totals["correct"] / samples}

    def _normalisation(self, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """``x / 255`` minus the mean over the deviation, as one product and one sum; kept on the device."""
        kept: dict[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor]] = self.__dict__.setdefault("_scales", {})
        if (device, dtype) not in kept:
            mean, std = (torch.tensor(v, dtype=torch.float64).view(-1, 1, 1) for v in (self.mean, self.std))
            scale, shift = 1 / (255 * std), -mean / std
            kept[device, dtype] = scale.to(device, dtype), shift.to(device, dtype)
        return kept[device, dtype]
