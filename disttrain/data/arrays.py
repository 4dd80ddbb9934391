"""A dataset that lies in memory and is read by vectorised gathers."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from disttrain.data.dataset import digest
from disttrain.errors import InputError


class ArrayDataset:
    """Tensors on the CPU whose first dimension counts the samples: ``(n, ...)`` each.

    Raises:
        InputError: no tensor, tensors of different lengths, a tensor without dimensions or not on the CPU.
    """

    def __init__(self, *tensors: Tensor) -> None:
        if not tensors:
            raise InputError("ArrayDataset needs at least one tensor")
        for index, tensor in enumerate(tensors):
            if tensor.dim() == 0 or tensor.device.type != "cpu":
                raise InputError(
                    f"tensor {index} of ArrayDataset has shape {tuple(tensor.shape)} on {tensor.device}; "
                    "expected (samples, ...) on the CPU"
                )
        if len({len(tensor) for tensor in tensors}) > 1:
            raise InputError(
                f"the tensors of ArrayDataset hold {[len(tensor) for tensor in tensors]} samples; "
                "expected equal numbers"
            )
        self.tensors = tuple(tensor.contiguous() for tensor in tensors)

    def __len__(self) -> int:
        return len(self.tensors[0])

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        return tuple(tensor[index] for tensor in self.tensors)

    @property
    def rowwise(self) -> bool:
        """Whether requests may be gathered together; a subclass that gathers in its own way says so for itself."""
        return type(self).gather is ArrayDataset.gather

    def gather(self, ids: NDArray[np.int64], epoch: int = 0) -> tuple[Tensor, ...]:
        """New tensors of the samples ``ids`` (n,): each (n, ...). Nothing depends on the epoch."""
        index = torch.from_numpy(ids)
        return tuple(tensor.index_select(0, index) for tensor in self.tensors)

    def fingerprint(self) -> str:
        """SHA-256 (hex) of the dtypes, the shapes and the contents."""
        return digest(self.tensors)
