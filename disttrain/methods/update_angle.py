"""The running angle between updates and weights: 90 degrees where updates turn the weights, more where they shrink them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from disttrain.data.batch import Batch
from disttrain.data.position import Position
from disttrain.engine.later import later
from disttrain.methods.base import Context, Method, Report

MEMORY = 50
"""Measurements that the running mean remembers; its decay is ``1 - 1 / MEMORY``."""


class UpdateAngle(Method):
    """``arccos`` of the running mean of ``cos = <dw, w> / (|dw| |w|)``, over all trained parameters together, in degrees, with
    ``w`` before the update and ``dw`` what the optimizer added (weight decay included).

    Scale-invariant weights settle where growth by the gradient and shrinking by the decay balance (Kosson, Messmer and
    Jaggi 2023, arXiv:2305.17212, section 3). The mean is exponential and unbiased from the first measurement on. Costs a copy
    of the weights in the updates that are measured; nothing waits for the device.
    """

    of_parameters = True

    def __init__(self, context: Context) -> None:
        assert context.recipe.update_angle is not None
        self._every, self._params = context.recipe.update_angle.every_steps, context.params
        self._before: list[Tensor] = []
        self._mean = torch.zeros((), dtype=torch.float64, device=context.engine.world.device)
        self._count = 0

    def begin_update(self, position: Position) -> None:
        measured = (position.updates + 1) % self._every == 0
        self._before = [p.detach().clone() for p in self._params] if measured else []

    def end_update(self, batch: Batch) -> None:
        if not self._before:
            return
        sums = torch.zeros(3, dtype=torch.float64, device=self._mean.device)
        for before, p in zip(self._before, self._params, strict=True):
            w, dw = before.double(), p.detach().double() - before.double()
            sums += torch.stack([(w * dw).sum(), w.square().sum(), dw.square().sum()])
        product, weights, update = sums.unbind()
        self._count += 1
        self._mean.lerp_(product / (weights * update).sqrt().clamp_min(torch.finfo(torch.float64).tiny), 1 / MEMORY)
        self._before = []

    def report(self) -> Report:
        if not self._count:
            return dict
        cosine = self._mean / (1.0 - (1.0 - 1.0 / MEMORY) ** self._count)
        degrees = later(torch.rad2deg(torch.arccos(cosine.clamp(-1.0, 1.0))).view(1))
        return lambda: {"update_angle": degrees()[0]}

    def state_dict(self) -> dict[str, Any]:
        return {"mean": self._mean, "count": self._count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._mean.copy_(state["mean"])
        self._count = state["count"]
