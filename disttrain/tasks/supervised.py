"""Inputs and targets, a loss and metrics as functions: a task without a class."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from disttrain.data.collate import Collate
from disttrain.data.dataset import Dataset
from disttrain.data.tree import a_kind
from disttrain.errors import InputError
from disttrain.tasks.base import Task

Measure = Callable[[Any, Tensor], Tensor]
"""``(outputs, targets)`` to a number for each sample, or for each item."""


class Supervised(Task):
    """``loss(model(inputs), targets)``, as most training is.

    Samples are pairs ``(inputs, targets)``, or dicts: then one key holds the targets and the others are the model's keyword
    arguments, as Hugging Face models take them. Where a model returns an object with ``logits``, these are the outputs.

    Args:
        train, test: data sets of such samples.
        loss: outputs and targets to one number for each sample, not their mean.
        metrics: likewise, by name; the means over the whole set are reported. The first decides which checkpoint is the best;
            without any, the loss.
        validation: the set that decides instead of the test set.
        targets: the key of the targets in samples that are dicts.
        collate: makes a batch of samples, for example by padding; None: they are stacked.
        lower_is_better: whether less of the first metric is better.

    Example::

        task = Supervised(
            train, test, partial(F.cross_entropy, reduction="none"), {"accuracy": lambda outputs, y: outputs.argmax(1) == y}
        )
    """

    def __init__(
        self,
        train: Dataset,
        test: Dataset,
        loss: Measure,
        metrics: Mapping[str, Measure] | None = None,
        *,
        validation: Dataset | None = None,
        targets: str = "labels",
        collate: Collate | None = None,
        lower_is_better: bool = False,
    ) -> None:
        self._sets = train, test, validation
        self._loss = loss
        self._metrics = dict(metrics or {})
        self._targets = targets
        if collate is not None:
            self.collate = collate  # type: ignore[method-assign, assignment]
        self._lower_is_better = lower_is_better
        self.metric = next(iter(self._metrics), "loss")
        self.metric_names = ("loss", *self._metrics)

    def train_dataset(self) -> Dataset:
        return self._sets[0]

    def test_dataset(self) -> Dataset:
        return self._sets[1]

    def validation_dataset(self) -> Dataset | None:
        return self._sets[2]

    def losses(self, model: nn.Module, tensors: Any) -> Tensor:
        outputs, targets = self.outputs(model, tensors)
        return self._loss(outputs, targets)

    def metrics(self, model: nn.Module, tensors: Any) -> Mapping[str, Tensor]:
        outputs, targets = self.outputs(model, tensors)
        return {name: measure(outputs, targets) for name, measure in {"loss": self._loss, **self._metrics}.items()}

    def predict(self, model: nn.Module, tensors: Any) -> Mapping[str, Tensor]:
        """``output``: what the model gives for the inputs."""
        if isinstance(tensors, Mapping):
            return {"output": _logits(model(**{k: v for k, v in tensors.items() if k != self._targets}))}
        return {"output": _logits(model(tensors[0]))}

    def higher_is_better(self, metric: str) -> bool:
        return metric != "loss" and not (metric == self.metric and self._lower_is_better)

    def outputs(self, model: nn.Module, tensors: Any) -> tuple[Any, Tensor]:
        """What the model says of a batch, and what it should have said.

        Raises:
            InputError: the samples are neither pairs nor dicts with the key of the targets.
        """
        if isinstance(tensors, Mapping) and self._targets in tensors:
            inputs = {key: value for key, value in tensors.items() if key != self._targets}
            return _logits(model(**inputs)), tensors[self._targets]
        if isinstance(tensors, tuple | list) and len(tensors) == 2:
            return _logits(model(tensors[0])), tensors[1]
        shown = f"a dict of {', '.join(map(str, tensors))}" if isinstance(tensors, Mapping) else a_kind(tensors)
        raise InputError(
            f"Supervised: a batch is {shown}; expected a pair (inputs, targets), or a dict with the key {self._targets!r} "
            "(another name: targets=...)"
        ).on_all_ranks()


def _logits(outputs: Any) -> Any:
    return getattr(outputs, "logits", outputs)
