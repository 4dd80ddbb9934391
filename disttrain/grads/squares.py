"""Sums of squares of many numbers: exact to a few parts in ten million, without a wide copy of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

__all__ = ["SquareNorm", "square_norm"]

BLOCK = 2**13
"""Elements that are added up in the tensor's precision. Blocks of 2^18 take as long, and are a hundred times as far off."""
_WAITING = 2**18
"""Elements of small tensors that wait to be added up together, so that each does not cost several calls."""


class SquareNorm:
    """``sum ||t||^2`` of tensors that come one after the other.

    Blocks of a tensor are added up in float32 (float64 for float64) and the blocks in float64, so it costs one read of the
    numbers. Small tensors wait for each other: each must stay as it is until :meth:`total`.
    """

    def __init__(self) -> None:
        self._norms: list[Tensor] = []
        self._small: list[Tensor] = []
        self._elements = 0

    def add(self, tensor: Tensor) -> None:
        """Take in a tensor of any shape, layout in memory and floating dtype; all on one device."""
        count = tensor.numel()
        if count >= BLOCK:
            self._blocks(tensor.detach().reshape(-1))
        elif count:
            self._small.append(tensor)
            self._elements += count
            if self._elements >= _WAITING:
                self._join()

    def join(self, tensors: Sequence[Tensor]) -> None:
        """Take in tensors that are small together, in few calls."""
        if tensors:
            with torch.no_grad():
                self._blocks(torch._C._nn.flatten_dense_tensors(list(tensors)))

    def total(self) -> Tensor:
        """The sum so far, 0-d float64 on the tensors' device; on the CPU where there were none. Begins anew."""
        self._join()
        norms, self._norms = self._norms, []
        if not norms:
            return torch.zeros((), dtype=torch.float64)
        return torch.cat(norms).double().square().sum()

    def _join(self) -> None:
        small, self._small, self._elements = self._small, [], 0
        self.join(small)

    def _blocks(self, flat: Tensor) -> None:
        whole = flat.numel() // BLOCK * BLOCK
        wide = _wide(flat.dtype)
        if whole:
            self._norms.append(torch.linalg.vector_norm(flat[:whole].view(-1, BLOCK), dim=1, dtype=wide))
        if whole < flat.numel():
            self._norms.append(torch.linalg.vector_norm(flat[whole:], dtype=wide).view(1))


def square_norm(tensors: Iterable[Tensor]) -> Tensor:
    """``sum ||t||^2``, 0-d float64 on the tensors' device: see :class:`SquareNorm`.

    Examples:
        >>> f"{square_norm([torch.tensor([3.0, 4.0]), torch.ones(2, 2), torch.tensor(1.0)]):.5f}"
        '30.00000'
    """
    found = SquareNorm()
    for tensor in tensors:
        found.add(tensor)
    return found.total()


def norms(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The 2-norm of each of one or more tensors on one device; 0-d, float64 of float64 and float32 of all others.

    On the CPU torch adds up all of a tensor in a few float32 sums, which is off by 4e-4 at ten million numbers, so large ones are
    read as :class:`SquareNorm` does.
    """
    if tensors[0].device.type == "cpu":
        return [_norm(tensor) for tensor in tensors]
    return list(torch._foreach_norm(list(tensors), 2.0, dtype=_wide(tensors[0].dtype)))


def _norm(tensor: Tensor) -> Tensor:
    wide = _wide(tensor.dtype)
    if tensor.numel() < BLOCK:
        return torch.linalg.vector_norm(tensor, dtype=wide)  # type: ignore[no-any-return]
    return square_norm([tensor]).sqrt().to(wide)


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype.itemsize < 4 else dtype
