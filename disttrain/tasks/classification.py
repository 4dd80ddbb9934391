"""Classification: cross-entropy per sample, accuracy by counts."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import cache, cached_property
from typing import Any

import torch
from torch import Tensor, nn

from disttrain.data.dataset import Dataset, InMemory, PerSample
from disttrain.data.mix import MixedInMemory, MixedPerSample, MixSettings, mix
from disttrain.data.selection import trained_on
from disttrain.errors import InputError
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

    metric = "accuracy"
    metric_names = ("loss", "accuracy")
    static_graph = True
    in_shape: tuple[int, ...]
    num_classes: int
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def __init__(self, label_smoothing: float = 0.0) -> None:
        self.label_smoothing = label_smoothing
        self._mix: tuple[MixSettings, int, float | None] | None = None

    def mix(self, settings: MixSettings, seed: int, held_out: float | None = None) -> None:
        """Mix training images from now on (see :mod:`disttrain.data.mix`).

        Args:
            held_out: share of the train set that validates, and is no partner.

        Raises:
            InputError: the samples are no images.
        """
        if len(self.in_shape) != 3:
            raise InputError(
                f"loss.mixup and loss.cutmix mix images (channels, height, width), and samples are of shape {self.in_shape}"
            )
        self._mix = settings, seed, held_out

    @abstractmethod
    def load(self) -> tuple[Dataset, Dataset]:
        """Read the train and the test set."""

    @cached_property
    def _datasets(self) -> tuple[Dataset, Dataset]:
        train, test = self.load()
        if self._mix is None:
            return train, test
        settings, seed, fraction = self._mix
        chosen = trained_on(len(train), fraction)
        if isinstance(train, InMemory):
            return MixedInMemory(train, settings, seed, chosen), test
        if isinstance(train, PerSample):
            return MixedPerSample(train, settings, seed, chosen), test
        raise InputError(
            f"loss.mixup and loss.cutmix need a data set with gather() or sample(), not {type(train).__name__}"
        )

    def train_dataset(self) -> Dataset:
        return self._datasets[0]

    def test_dataset(self) -> Dataset:
        return self._datasets[1]

    def sizes(self) -> Sizes:
        return Sizes(*(len(dataset) for dataset in self._datasets))

    def model_hints(self) -> Mapping[str, Any]:
        return {"in_shape": self.in_shape, "num_classes": self.num_classes}

    def prepare(self, tensors: Sequence[Tensor], dtype: torch.dtype) -> Sequence[Tensor]:
        if not isinstance(tensors, tuple | list):
            held = f" with {', '.join(map(str, tensors))}" if isinstance(tensors, Mapping) else ""
            raise InputError(
                f"task {type(self).__name__}: a sample is a {type(tensors).__name__}{held}; expected a tuple, (input, label), "
                "or a prepare() of your own that makes one of it"
            ).on_all_ranks()
        if len(tensors) <= 2:  # without labels where there is only something to predict
            return self._normalised(tensors[0], dtype), *tensors[1:]
        images, labels, others, other_labels, share, centres = tensors
        mixed, share = mix(self._normalised(images, dtype), self._normalised(others, dtype), share, centres)
        return mixed, labels, other_labels, share

    def _normalised(self, inputs: Tensor, dtype: torch.dtype) -> Tensor:
        if inputs.dtype != torch.uint8:
            return inputs.to(dtype)
        scale, shift = _scale_and_shift(self.mean, self.std, inputs.dim(), inputs.device, dtype)
        return torch.addcmul(shift, inputs.to(dtype), scale)

    def losses(self, model: nn.Module, tensors: Sequence[Tensor]) -> Tensor:
        if len(tensors) == 2:
            return cross_entropy(model(tensors[0]), tensors[1], self.label_smoothing)
        inputs, labels, other_labels, share = tensors
        logits = model(inputs)
        own, other = (cross_entropy(logits, y, self.label_smoothing) for y in (labels, other_labels))
        return torch.lerp(other, own, share.to(own))

    def evaluate(self, model: nn.Module, tensors: Sequence[Tensor]) -> dict[str, Tensor]:
        inputs, labels = tensors
        return totals(model(inputs), labels)

    def predict(self, model: nn.Module, tensors: Sequence[Tensor]) -> Mapping[str, Tensor]:
        """``class`` (int64), ``probabilities`` (samples, classes), and the ``target`` where it is known."""
        logits = model(tensors[0])
        target = {"target": tensors[1]} if len(tensors) == 2 else {}
        probabilities = logits.softmax(-1, dtype=torch.promote_types(logits.dtype, torch.float32))
        return {"class": logits.argmax(-1), **target, "probabilities": probabilities}

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
