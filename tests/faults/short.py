"""A task that runs out of memory; named by recipes of the fault tests."""

from __future__ import annotations

import os
import resource
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from disttrain.tasks.digits import Digits

RANK = int(os.environ.get("RANK") or os.environ.get("HOROVOD_RANK") or 0)


class Short(Digits):
    """Digits; the memory of one rank is too small.

    Args:
        rank: whose.
        most: samples that its model can take at once.
        after: calls of ``losses`` that always go well.
        how: whose error it is: ``cuda`` (torch's own, as CUDA's allocator raises it), or a real one, of torch's allocator
            (``torch``) or NumPy's (``numpy``).
        evaluating: samples that an evaluation can take at once.
    """

    def __init__(
        self,
        rank: int = 0,
        most: int = 10**9,
        after: int = 0,
        how: str = "cuda",
        evaluating: int = 10**9,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(label_smoothing)
        self.rank, self.most, self.after, self.how, self.evaluating, self.calls = rank, most, after, how, evaluating, 0

    def losses(self, model: nn.Module, tensors: Sequence[Tensor]) -> Tensor:
        self.calls += 1
        self._check(len(tensors[0]), self.most if self.calls > self.after else 10**9)
        return super().losses(model, tensors)

    def evaluate(self, model: nn.Module, tensors: Sequence[Tensor]) -> dict[str, Tensor]:
        self._check(len(tensors[0]), self.evaluating)
        return super().evaluate(model, tensors)

    def _check(self, samples: int, most: int) -> None:
        if samples <= most or self.rank != RANK:
            return
        if self.how == "cuda":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has too little.")
        _ = torch.empty(2**55) if self.how == "torch" else np.empty(2**55)


class Limited(Digits):
    """Digits in a process that may take ``mib`` MiB more than it has; a sample takes one MiB on its way through the model."""

    def __init__(self, mib: int, label_smoothing: float = 0.0) -> None:
        super().__init__(label_smoothing)
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + mib * 2**20, hard))

    def losses(self, model: nn.Module, tensors: Sequence[Tensor]) -> Tensor:
        images, targets = tensors
        wide = images.flatten(1).repeat(1, 2**18 // images[0].numel()).requires_grad_()  # 2^18 numbers of 4 bytes
        noise = (wide * 1.0).sum(1)
        return super().losses(model, [images, targets]) + 0.0 * noise
