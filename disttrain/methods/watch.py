"""Watching for values that are not finite without making the host wait for the device in every step."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from disttrain.engine.later import later
from disttrain.errors import DivergedError


class GradientWatch:
    """Keeps the gradient norm of each update on the device until somebody asks.

    It is asked for every line and before anything is evaluated or saved, so a diverged run ends within one logging interval
    and never leaves a checkpoint that is not finite. The norm is the same on all ranks, and so is the answer.
    """

    def __init__(self) -> None:
        self._norms: list[Tensor] = []
        self._first = 0

    def note(self, step: int, grad_norm: Tensor) -> None:
        """Remember the norm of update ``step``, counted from 1."""
        if not self._norms:
            self._first = step
        self._norms.append(grad_norm)

    def begin_check(self) -> Callable[[], float]:
        """Let the norms noted since the last time travel to the host. Calling what is returned checks them, raising as
        :meth:`check` does, and gives the latest norm.

        Raises:
            ValueError: none was noted.
        """
        if not self._norms:
            raise ValueError("no gradient norm was noted since the last check")
        first, norms = self._first, later(torch.stack(self._norms))
        self._norms.clear()

        def check() -> float:
            found = norms()
            for step, norm in enumerate(found, start=first):
                if not math.isfinite(norm):
                    raise diverged(step, norm)
            return found[-1]

        return check

    def check(self) -> None:
        """Raise if a gradient noted since the last check was not finite.

        Raises:
            DivergedError: on all ranks, naming the update.
        """
        if self._norms:
            self.begin_check()()


def diverged(step: int, norm: float) -> DivergedError:
    return DivergedError(
        f"the gradient norm of update {step} is {norm}: training diverged or the data is not finite. Nothing after it was "
        "saved. Lower optimizer.lr, lengthen schedule.warmup, or set gradient.clip_norm; then resume from the last "
        "checkpoint"
    ).on_all_ranks()
