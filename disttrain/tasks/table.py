"""A table of numbers: a column predicted from the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from disttrain.data.arrays import ArrayDataset
from disttrain.data.selection import Selection, held_out
from disttrain.data.table import Table
from disttrain.errors import InputError
from disttrain.tasks import cross_entropy as classes
from disttrain.tasks import regression
from disttrain.tasks.base import Task


class TableTask(Task):
    """CSV or Parquet; the target is a number or a class.

    Inputs, and a target that is a number, are standardised by mean and standard deviation of the train set: the model predicts
    standardised numbers, ``loss`` is their mean squared error, ``rmse`` and ``mae`` are in the units of the column.

    Args:
        train: a ``.csv``, ``.tsv`` or ``.parquet`` file.
        target: the column to be predicted.
        test: a file of the same columns; None: rows of ``train``.
        test_fraction: share of them that is the test set then, a fixed choice.
        kind: ``regression`` or ``classification``.
        features: the columns of the inputs; None: all but the target.
        standardise: whether to; otherwise numbers are taken as they are.
        label_smoothing: of a classification, in training only.

    Raises:
        InputError: ``label_smoothing`` for a regression.
        DataError: when the data is read: see :class:`disttrain.data.table.Table`.
    """

    static_graph = True

    def __init__(
        self,
        train: str,
        target: str,
        test: str | None = None,
        test_fraction: float = 0.2,
        kind: str = "regression",
        features: Sequence[str] | None = None,
        standardise: bool = True,
        label_smoothing: float = 0.0,
    ) -> None:
        if kind == "regression" and label_smoothing:
            raise InputError("loss.label_smoothing is for classes, and not for task table with kind: regression")
        self.train, self.test, self.test_fraction = train, test, test_fraction
        self.target, self.features, self.standardise = target, features, standardise
        self.predicts: _Predicts = _Number() if kind == "regression" else _Class(label_smoothing)
        self._placed: dict[torch.device, tuple[tuple[Tensor, Tensor], ...]] = {}
        self.metric, self.metric_names = self.predicts.metric, self.predicts.metric_names

    @cached_property
    def _table(self) -> Table:
        return Table(self.train, self.target, features=self.features, classes=self.predicts.classes)

    @cached_property
    def _datasets(self) -> tuple[ArrayDataset, ArrayDataset]:
        table = self._table
        if self.test is None:
            train, test = (_rows(table, part) for part in held_out(len(table), self.test_fraction))
            return train, test
        return table, Table(self.test, self.target, features=table.columns, classes=table.classes or False)

    def train_dataset(self) -> ArrayDataset:
        return self._datasets[0]

    def test_dataset(self) -> ArrayDataset:
        return self._datasets[1]

    @cached_property
    def moments(self) -> tuple[tuple[Tensor, Tensor], ...]:
        """Mean and standard deviation, float64, of each input, and of the target; a constant has a deviation of 1."""
        found = []
        with torch.inference_mode(False):  # the first call may come from an evaluation
            for values in self.train_dataset().tensors:
                numbers = (
                    values.double()
                    if self.standardise
                    else values.new_zeros(values.shape[1:], dtype=torch.float64)[None]
                )
                spread = numbers.std(0, correction=0)
                found.append((numbers.mean(0), torch.where(spread > 0, spread, 1.0)))
        return tuple(found)

    def _moments_on(self, device: torch.device) -> tuple[tuple[Tensor, Tensor], ...]:
        """Kept, because a copy in every step would wait for a GPU."""
        if device not in self._placed:
            self._placed[device] = tuple((mean.to(device), spread.to(device)) for mean, spread in self.moments)
        return self._placed[device]

    def model_hints(self) -> Mapping[str, Any]:
        outputs = 1 if self._table.classes is None else len(self._table.classes)
        return {"in_shape": (len(self._table.columns),), "num_classes": outputs}

    def prepare(self, tensors: Sequence[Tensor], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        x, y = tensors
        of_x, of_y = self._moments_on(x.device)
        return _standardised(x, of_x).to(dtype), self.predicts.prepare(y, of_y, dtype)

    def losses(self, model: nn.Module, tensors: Sequence[Tensor]) -> Tensor:
        x, y = tensors
        return self.predicts.losses(model(x), y)

    def evaluate(self, model: nn.Module, tensors: Sequence[Tensor]) -> dict[str, Tensor]:
        x, y = tensors
        return self.predicts.totals(model(x), y, self._centre)

    @cached_property
    def _centre(self) -> float:
        """About the mean of the targets as the model predicts them."""
        if self.standardise or self.predicts.classes:
            return 0.0
        return float(self.train_dataset().tensors[1].double().mean())

    def summarise(self, totals: Mapping[str, float]) -> dict[str, float]:
        return self.predicts.rates(totals, float(self.moments[1][1]))


class _Predicts(Protocol):
    """What a target is."""

    metric: str
    metric_names: tuple[str, ...]
    classes: bool

    def prepare(self, y: Tensor, moments: tuple[Tensor, Tensor], dtype: torch.dtype) -> Tensor: ...
    def losses(self, predicted: Tensor, y: Tensor) -> Tensor: ...
    def totals(self, predicted: Tensor, y: Tensor, centre: float) -> dict[str, Tensor]: ...
    def rates(self, totals: Mapping[str, float], unit: float) -> dict[str, float]: ...


class _Number:
    metric = "rmse"
    metric_names: tuple[str, ...] = ("loss", "rmse", "mae", "r2")
    classes = False

    def prepare(self, y: Tensor, moments: tuple[Tensor, Tensor], dtype: torch.dtype) -> Tensor:
        return _standardised(y, moments).to(dtype)

    def losses(self, predicted: Tensor, y: Tensor) -> Tensor:
        return regression.squares(predicted, y)

    def totals(self, predicted: Tensor, y: Tensor, centre: float) -> dict[str, Tensor]:
        return regression.totals(predicted, y, centre)

    def rates(self, totals: Mapping[str, float], unit: float) -> dict[str, float]:
        return regression.rates(totals, unit)


class _Class:
    metric = "accuracy"
    metric_names: tuple[str, ...] = ("loss", "accuracy")
    classes = True

    def __init__(self, label_smoothing: float) -> None:
        self.label_smoothing = label_smoothing

    def prepare(self, y: Tensor, moments: tuple[Tensor, Tensor], dtype: torch.dtype) -> Tensor:
        return y

    def losses(self, predicted: Tensor, y: Tensor) -> Tensor:
        return classes.cross_entropy(predicted, y, self.label_smoothing)

    def totals(self, predicted: Tensor, y: Tensor, centre: float) -> dict[str, Tensor]:
        return classes.totals(predicted, y)

    def rates(self, totals: Mapping[str, float], unit: float) -> dict[str, float]:
        return classes.rates(totals)


def _rows(table: Table, selection: Selection) -> ArrayDataset:
    return ArrayDataset(*table.gather(np.sort(selection.ids(np.arange(len(selection))))))


def _standardised(values: Tensor, moments: tuple[Tensor, Tensor]) -> Tensor:
    mean, spread = moments
    return (values - mean) / spread
