"""Mistakes in code of one's own; named by recipes of ``test_messages.py``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset, IterableDataset

from disttrain.tasks.base import Sizes
from disttrain.tasks.digits import Digits


class MeanLoss(Digits):
    def losses(self, model: nn.Module, tensors: Sequence[Tensor]) -> Tensor:
        images, targets = tensors
        return F.cross_entropy(model(images), targets)


class FewLosses(Digits):
    def losses(self, model: nn.Module, tensors: Sequence[Tensor]) -> Tensor:
        losses: Tensor = super().losses(model, tensors)
        return losses[:3]


class Items(Dataset[Any]):
    def __init__(self, shapes: bool) -> None:
        self.shapes = shapes

    def __len__(self) -> int:
        return 100

    def __getitem__(self, index: int) -> Any:
        return torch.zeros(1, 8, 8 + (self.shapes and index == 50)), 0 if self.shapes else "cat"


class OddShapes(Digits):
    shapes = True

    def sizes(self) -> Sizes:
        return Sizes(100, 100)

    def train_dataset(self) -> Any:
        return Items(self.shapes)

    def test_dataset(self) -> Any:
        return Items(self.shapes)


class StringLabels(OddShapes):
    shapes = False


class Dicts(OddShapes):
    def train_dataset(self) -> Any:
        return [{"image": torch.zeros(1, 8, 8), "label": 0}] * 100


class Endless(IterableDataset[Any]):
    def __iter__(self) -> Any:
        while True:
            yield torch.zeros(1, 8, 8), 0


class Stream(OddShapes):
    def train_dataset(self) -> Any:
        return Endless()
