"""Watching for values that are not finite without making the host wait for the device in every step."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from disttrain.errors import DivergedError


class GradientWatch:
    """Keeps the gradient norm of each update on the device until somebody asks.

    It is asked before a line is logged and before anything is evaluated or saved, so a diverged run ends within one
    logging interval and never leaves a checkpoint that is not finite. The norm is the same on all ranks, and so is the
    answer.
    """

    def __init__(self) -> None:
        self._norms: list[Tensor] = []
        self._first = 0

    def note(self, step: int, grad_norm: Tensor) -> None:
        """Remember the norm of update ``step``, counted from 1."""
        if not self._norms:
            self._first = step
        self._norms.append(grad_norm)

    def check(self) -> None:
        """Raise if a gradient noted since the last call was not finite.

        Raises:
            DivergedError: on all ranks, naming the update.
        """
        if not self._norms:
            return
        norms = torch.stack(self._norms).tolist()
        self._norms.clear()
        for i, norm in enumerate(norms):
            if not math.isfinite(norm):
                raise DivergedError(
                    f"the gradient norm of update {self._first + i} is {norm}: training diverged or the data is not "
                    "finite. Nothing after it was saved. Lower optimizer.lr, lengthen schedule.warmup, or set "
                    "gradient.clip_norm; then resume from the last checkpoint"
                ).on_all_ranks()
