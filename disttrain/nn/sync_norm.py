"""Batch norm over all ranks' samples, on any device and over any all-reduce."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

AllReduce = Callable[[Tensor], object]
"""Sums a tensor over all ranks in place."""


class SyncBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm whose mean and variance are those of the ranks' batches together, which may differ in size.

    Forward exchanges sums and counts, then squared deviations from the common mean, so that nothing cancels; backward
    exchanges the two sums its gradient needs. torch's SyncBatchNorm works on GPUs only and on torch's own process
    groups; this one is slower and works anywhere. Running statistics are the same on all ranks. In evaluation it is
    torch's batch norm.

    Args:
        num_features, eps, momentum, affine, track_running_stats, device, dtype: as in torch; ``momentum`` must be a
            number.
        all_reduce: the exchange.

    Shape: ``(N, C, ...)``, ``N`` at least 1.

    Raises:
        ValueError: ``momentum`` is None; in a training forward: all ranks together have one value per channel.
    """

    def __init__(
        self,
        num_features: int,
        all_reduce: AllReduce,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        *,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        if momentum is None:
            raise ValueError("momentum=None, a cumulative average, is not supported; give a number")
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device=device, dtype=dtype)
        self.all_reduce = all_reduce

    def __deepcopy__(self, memo: dict[int, Any]) -> SyncBatchNorm:
        memo[id(self.all_reduce)] = self.all_reduce  # copies talk to the same ranks
        new = memo[id(self)] = type(self).__new__(type(self))
        new.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return new

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"SyncBatchNorm: expected at least 2 dimensions, got {input.dim()}")

    def forward(self, x: Tensor) -> Tensor:
        self._check_input_dim(x)
        if not self.training:
            return super().forward(x)
        y, mean, variance, count = _Normalize.apply(x, self.eps, self.all_reduce)  # type: ignore[no-untyped-call]
        if self.track_running_stats and self.running_mean is not None and self.running_var is not None:
            with torch.no_grad():
                momentum = cast("float", self.momentum)
                self.running_mean.lerp_(mean.to(self.running_mean), momentum)
                self.running_var.lerp_((variance * count / (count - 1)).to(self.running_var), momentum)
                cast("Tensor", self.num_batches_tracked).add_(1)
        if self.affine:
            shape = (1, -1, *[1] * (x.dim() - 2))
            # In float32 at least, as torch does: sums over many values are taken for the gradient of the weight.
            y = torch.addcmul(self.bias.view(shape).to(y), y, self.weight.view(shape).to(y))
        return cast("Tensor", y).to(x.dtype)


class _Normalize(torch.autograd.Function):
    """``(x - mean) / sqrt(variance + eps)`` with the statistics of all ranks, in at least float32; also returns these and
    their count."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float, all_reduce: AllReduce) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        wide = x.detach() if x.dtype == torch.float64 else x.detach().float()
        dims, shape = [0, *range(2, x.dim())], (1, -1, *[1] * (x.dim() - 2))
        values = torch.tensor([x.numel() // x.shape[1]], dtype=wide.dtype, device=x.device)
        sums = torch.cat([wide.sum(dims), values])
        all_reduce(sums)
        count = sums[-1]
        # Only where a rank holds one value can there be no more in all; elsewhere the device is not waited for.
        if x.numel() // x.shape[1] <= 1 and count.item() <= 1:
            raise ValueError(
                f"batch norm needs more than one value per channel, and all ranks have one; input {tuple(x.shape)}"
            )
        mean = sums[:-1] / count
        centred = wide - mean.view(shape)
        squares = centred.square().sum(dims)
        all_reduce(squares)
        variance = squares / count
        scale = torch.rsqrt(variance + eps)
        y = centred * scale.view(shape)
        ctx.save_for_backward(y, scale, count)
        ctx.all_reduce, ctx.dims, ctx.shape, ctx.dtype = all_reduce, dims, shape, x.dtype
        ctx.mark_non_differentiable(mean, variance, count)
        return y, mean, variance, count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        y, scale, count = ctx.saved_tensors
        g = grads[0]
        sums = torch.cat([g.sum(ctx.dims), (g * y).sum(ctx.dims)])
        ctx.all_reduce(sums)
        first, second = (part.view(ctx.shape) / count for part in sums.chunk(2))
        return (scale.view(ctx.shape) * (g - first - y * second)).to(ctx.dtype), None, None
