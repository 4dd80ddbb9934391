"""A model that no compiler takes."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Uncompilable(nn.Module):
    """What it does with its input is an error while it is traced."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(64, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.linear(x.flatten(1))
        return y @ y if torch.compiler.is_compiling() else y
