"""What a task is: data, the loss of each item, and metrics as exact sums."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from disttrain.data.collate import stack
from disttrain.data.dataset import Dataset, dataset_fingerprint
from disttrain.data.tree import Tensors, leaves, map_leaves
from disttrain.data.usable import require_usable
from disttrain.engine.gather import GlobalBatch
from disttrain.errors import InputError
from disttrain.names import did_you_mean
from disttrain.tasks.outputs import outputs_during
from disttrain.tasks.terms import Losses, sum_of

COUNT = "/count"
"""Ends the name of a total that says how many numbers another one is the sum of."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Samples of each set; ``validation`` where the task brings such a set of its own."""

    train: int
    test: int
    validation: int = 0


class Task(ABC):
    """Subclass it for a task of your own, and name it in a recipe as ``pkg.mod:Class``; further keys of the section are the
    arguments of its constructor. ``seed`` and ``label_smoothing`` come from the recipe if the constructor has them.

    The least is :meth:`train_dataset`, :meth:`test_dataset` and :meth:`losses`; :meth:`metrics` adds metrics that are means.

    Attributes:
        metric: the metric that decides which checkpoint is the best.
        metric_names: what :meth:`summarise` gives, so that a misspelt name is found before training; empty: not known until
            the first evaluation.
        items_per_sample: loss items of one sample: 1 for classification, the sequence length for text; None where it
            varies, and then :meth:`count_items` is summed over the ranks in every update.
        over_global_batch: the loss of a sample depends on the others of the global batch, as a contrastive one does;
            :meth:`losses` gathers them with ``self.global_batch``, and a plan that accumulates is refused.
        global_batch: while training, the global batch that :meth:`losses` sees this rank's part of; set for each batch.
        static_graph: promise that every step uses the same parameters in the same way.
        default_model: name and arguments of the model when the recipe has none.
    """

    metric = "loss"
    metric_names: tuple[str, ...] = ()
    items_per_sample: int | None = 1
    over_global_batch = False
    global_batch: GlobalBatch
    static_graph = False
    default_model: tuple[str, Mapping[str, Any]] = ("mlp", {})

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if {"summarise", "metrics"} & vars(cls).keys() and "metric_names" not in vars(cls):
            cls.metric_names = ()  # the inherited names are those of the inherited methods

    def sizes(self) -> Sizes:
        """Samples of the sets, by reading them; override it where that can be had cheaper, for ``disttrain show``."""
        counts = []
        for name in ("train_dataset", "test_dataset", "validation_dataset"):
            dataset = getattr(self, name)()
            if dataset is not None:
                require_usable(dataset, f"task {type(self).__name__}: {name}()")
            counts.append(0 if dataset is None else len(dataset))
        return Sizes(*counts)

    @abstractmethod
    def train_dataset(self) -> Dataset:
        """The train set, one of the three kinds of :mod:`disttrain.data.dataset` (Hugging Face's and torch's are the third);
        called often, so load it once.

        A part of it is also evaluated. If its samples are changed at random, give the data set a method ``plain()`` that
        returns one of the same samples as they are; without it they are evaluated with the random changes of epoch 0.
        """

    @abstractmethod
    def test_dataset(self) -> Dataset:
        """The test set; called often, so load it once."""

    def validation_dataset(self) -> Dataset | None:
        """The set that decides which checkpoint is the best and when to stop, if the task brings one of its own (``sizes`` then
        counts it); called often, so load it once. Without it, a recipe's ``data.validation`` or the test set decides."""
        return None

    def collate(self, samples: list[Any]) -> Tensors:
        """A batch of the samples of one micro-batch, for training and evaluation alike: override it to pad samples of unequal
        length. It runs in the data workers, and not for data sets that gather batches themselves.

        How long the longest sample is depends on how the global batch is cut, so nothing may depend on the padding: mask it in
        the model, and give it losses of zero (see :meth:`count_items`). The default is :func:`disttrain.data.collate.stack`.
        """
        return stack(samples)

    @abstractmethod
    def losses(self, model: nn.Module, tensors: Any) -> Losses:
        """Loss of each item, ``(samples,)`` or ``(samples, items)``, of what :meth:`prepare` returned (a tuple, a dict, ..., as
        the samples are); or several such by name (the same in every batch), whose sum, weighted by the recipe's ``loss.weights``
        or ``loss.balance``, is minimised.

        Do not take the mean: the losses are summed and divided by the items of the whole global batch.
        """

    def metrics(self, model: nn.Module, tensors: Any) -> Mapping[str, Tensor]:
        """What is measured of what :meth:`prepare` returned, by name: a number for each sample, or for each item. The metrics are
        the means over the whole set. Must include ``loss``; without an override it is all there is."""
        losses = self.losses(model, tensors)
        return {"loss": losses} if isinstance(losses, Tensor) else {"loss": sum_of(losses), **losses}

    def evaluate(self, model: nn.Module, tensors: Any) -> dict[str, Tensor]:
        """Sums over a batch, by name, as scalar tensors; they are added up over batches and ranks in float64. For metrics that
        are no means of :meth:`metrics`; override it together with :meth:`summarise`."""
        found = self.metrics(model, tensors)
        self._check_measured(found, tensors)
        counts = {name: v.numel() if v.dim() == 1 else self.count_items(tensors) for name, v in found.items()}
        sums = {name: values.double().sum() for name, values in found.items()}
        return {**sums, **{f"{name}{COUNT}": torch.tensor(count) for name, count in counts.items()}}

    def _check_measured(self, found: Mapping[str, Tensor], tensors: Any) -> None:
        """A mean that is taken already would be divided once more, and ``(n,)`` against ``(n, 1)`` gives ``(n, n)``."""
        samples = len(leaves(tensors)[0])
        for name, values in found.items():
            items = None if self.items_per_sample is None else samples * self.items_per_sample
            if values.dim() == 0 or (values.dim() > 1 and items is not None and values.numel() != items):
                raise InputError(
                    f"task {type(self).__name__}: metrics() gave {name} of shape {tuple(values.shape)} for a batch of {samples} "
                    "samples; expected a number for each, not their mean or sum (for what is no mean, such as F1, define "
                    "evaluate() and summarise())"
                )

    def summarise(self, totals: Mapping[str, float]) -> dict[str, float]:
        """Metrics from the totals of :meth:`evaluate` over the whole set; must include ``loss`` and ``metric``."""
        return {name: total / totals[f"{name}{COUNT}"] for name, total in totals.items() if not name.endswith(COUNT)}

    def predict(self, model: nn.Module, tensors: Any) -> Mapping[str, Tensor]:
        """What the trained model says of each sample, by name: ``(samples, ...)``. For ``disttrain predict``; override it to have
        it for files too: ``tensors``, which :meth:`prepare` returned, then hold the inputs without targets (of an array or a
        line of JSON a tuple of one, of an object in JSON a dict of its fields). The default gives what the model gives when
        :meth:`evaluate` first calls it, so it needs targets as that does."""
        return outputs_during(model, lambda: self.evaluate(model, tensors))

    def model_hints(self) -> Mapping[str, Any]:
        """Facts for the model: ``in_shape``, ``num_classes``, ``vocab_size``, ``sequence_length``."""
        return {}

    def prepare(self, tensors: Any, dtype: torch.dtype) -> Any:
        """On the device: what comes from the dataset, made ready for a model whose parameters have ``dtype``."""
        return map_leaves(lambda tensor: tensor.to(dtype) if tensor.is_floating_point() else tensor, tensors)

    def count_items(self, tensors: Any) -> int | Tensor:
        """Loss items of a micro-batch as the dataset delivers it; override it where ``items_per_sample`` is None.

        Of padded text with a loss of each token: ``losses`` gives ``(samples, tokens)`` with zeros where there is padding, and
        this the number of real tokens. The mean over the global batch is then over real tokens.
        """
        if self.items_per_sample is None:
            # Not abstract: most tasks have a fixed number. build_task refuses a task that lacks it before anything is trained.
            raise NotImplementedError(f"{type(self).__name__}: items_per_sample is None, so it needs count_items()")
        return len(leaves(tensors)[0]) * self.items_per_sample

    def judged(self, metrics: Mapping[str, float], name: str) -> float:
        """What decides in ``metrics``, those of an evaluation: the value of ``name``, :attr:`metric` or early stopping's.

        Raises:
            InputError: it is not there, the same on all ranks.
        """
        if name in metrics:
            return metrics[name]
        if name == self.metric:
            raise InputError(
                f"task {type(self).__name__}: its metric, which decides which checkpoint is the best, is {name!r}, but "
                f"summarise() gives {', '.join(metrics)}: set the attribute metric to one of them"
            ).on_all_ranks()
        raise unknown_metric(name, type(self).__name__, metrics).on_all_ranks()

    def higher_is_better(self, metric: str) -> bool:
        """Whether more of ``metric`` is better."""
        return metric not in ("loss", "perplexity", "mse", "rmse", "mae")

    def fingerprint(self) -> str:
        """Digest of the data, compared between ranks before the first update.

        A dataset that has a ``fingerprint()`` says itself what it consists of; of others, the size and a few samples count.
        """
        digest = hashlib.sha256()
        for dataset in (self.train_dataset(), self.test_dataset(), self.validation_dataset()):
            if dataset is not None:
                digest.update(dataset_fingerprint(dataset).encode())
        return digest.hexdigest()[:16]


def unknown_metric(name: str, task: str, known: Iterable[str], key: str = "early_stopping.metric is") -> InputError:
    """What to say of a metric that is none of the ``known`` ones; ``key``: where it was asked for."""
    names = list(known)
    hint = did_you_mean(name, names)
    return InputError(f"{key} {name!r}; task {task} has {', '.join(names)}{hint}")
