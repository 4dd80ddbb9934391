"""A task with two losses, and a model with a head for each: the digit, and how much ink it took."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from disttrain.tasks.digits import Digits


class DigitAndInk(Digits):
    """``label``: cross entropy; ``ink``: squared error, ten times too large, of the mean pixel."""

    def losses(self, model: nn.Module, tensors: Sequence[Tensor]) -> Mapping[str, Tensor]:  # type: ignore[override]
        images, labels = tensors
        logits, ink = model(images)
        return {
            "label": F.cross_entropy(logits, labels, reduction="none"),
            "ink": 10 * (ink.squeeze(1) - images.flatten(1).mean(1)).square(),
        }

    def evaluate(self, model: nn.Module, tensors: Sequence[Tensor]) -> dict[str, Tensor]:
        losses = self.losses(model, tensors)
        right = model(tensors[0])[0].argmax(1) == tensors[1]
        count = torch.tensor(len(tensors[1]))
        return {"loss": sum(losses.values(), torch.zeros(())).double().sum(), "correct": right.sum(), "count": count}

    def summarise(self, totals: Mapping[str, float]) -> dict[str, float]:
        return {"loss": totals["loss"] / totals["count"], "accuracy": totals["correct"] / totals["count"]}


class TwoHeads(nn.Module):
    def __init__(self, in_shape: Sequence[int]) -> None:
        super().__init__()
        pixels = int(torch.tensor(in_shape).prod())
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(pixels, 24), nn.Tanh(), nn.Linear(24, 16), nn.Tanh())
        self.label = nn.Linear(16, 10)
        self.ink = nn.Linear(16, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        shared = self.body(x)
        return self.label(shared), self.ink(shared)
