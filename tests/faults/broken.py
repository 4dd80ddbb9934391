"""A task that breaks on one rank on purpose; named by recipes of the fault tests."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence

import numpy as np
from torch import Tensor, nn

from disttrain.data import ArrayDataset
from disttrain.data.dataset import Dataset
from disttrain.engine.environment import read_launch
from disttrain.tasks.digits import Digits


class Breaking(Digits):
    """Digits; one rank fails in a given micro-batch.

    Args:
        rank: who fails.
        at: the call of ``losses`` that fails, from 1.
        how: ``raise``, ``nan`` (a loss that is not a number), ``exit`` (leave with code 0), or ``kill`` (SIGKILL, in the first
            of torchrun's attempts only).
    """

    def __init__(self, rank: int, at: int, how: str = "raise", label_smoothing: float = 0.0) -> None:
        super().__init__(label_smoothing)
        self.rank, self.at, self.how, self.calls = rank, at, how, 0

    def losses(self, model: nn.Module, tensors: Sequence[Tensor]) -> Tensor:
        self.calls += 1
        losses = super().losses(model, tensors)
        if self.calls != self.at or read_launch().rank != self.rank:
            return losses
        if self.how == "nan":
            return losses * float("nan")
        if self.how == "kill":
            if os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0":
                os.kill(os.getpid(), signal.SIGKILL)
            return losses
        if self.how == "exit":
            os._exit(0)
        raise ValueError(f"planted in call {self.at}")


class Different(Digits):
    """Digits, of which rank 1 sees one pixel otherwise."""

    def load(self) -> tuple[Dataset, Dataset]:
        train, test = super().load()
        assert isinstance(train, ArrayDataset)
        if read_launch().rank == 1:
            train.gather(np.arange(1))  # the tensors themselves are changed below, not a copy
            train.tensors[0][0, 0, 0, 0] += 1
        return train, test


class Unmade(Digits):
    """Digits whose constructor fails, on all ranks or on one."""

    def __init__(self, on: int = -1, label_smoothing: float = 0.0) -> None:
        super().__init__(label_smoothing)
        if on in (-1, read_launch().rank):
            raise KeyError("no such column")
