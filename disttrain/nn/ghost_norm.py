"""Ghost batch norm: batch norm over small parts of a large batch (Hoffer, Hubara and Soudry 2017, arXiv:1705.08741,
algorithm 1)."""

from __future__ import annotations

from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from disttrain.nn.ghosts import ghost_count

StatsUpdate = Literal["mean", "sequential"]


class GhostBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm in which each ghost, ``ghost_size`` consecutive samples, is normalised by its own mean and variance;
    weight and bias are shared. In evaluation it is torch's batch norm, and ``state_dict`` has torch's keys and shapes.

    The last ghost takes the remainder too; a batch of fewer samples than ``ghost_size`` is one ghost. The paper's
    code makes ghosts in the same way, one chunk after the other; some libraries interleave them.

    Running statistics ``R`` (mean, and unbiased variance as torch keeps it; the paper keeps the deviation) are folded
    from those of the ``K`` ghosts, ``s_1`` to ``s_K``, by one of two rules:

    - ``sequential`` (the authors' code): one after the other,
      ``R = (1 - momentum)^K R + sum momentum (1 - momentum)^(K - l) s_l``. The
      formula printed in the paper does not sum to one and is read as this.
    - ``mean`` (as in Keras): ``R = (1 - momentum) R + momentum * mean s_l``, the mean weighted by the ghosts' sizes. The memory
      does not depend on the number of ghosts.

    Every training forward folds, unless a trainer has taken over (:func:`disttrain.nn.defer_statistics`).

    Args:
        num_features: channels.
        ghost_size: samples in a ghost.
        eps, momentum, affine, track_running_stats, device, dtype: as in torch.
        stats_update: the rule.

    Raises:
        ValueError: ``ghost_size`` is below 1, or ``momentum`` is None (a cumulative average); in a training forward:
            a ghost has a single value per channel.
    """

    def __init__(
        self,
        num_features: int,
        ghost_size: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        *,
        stats_update: StatsUpdate = "sequential",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        if ghost_size < 1:
            raise ValueError(f"ghost_size is {ghost_size}; it must be at least 1")
        if momentum is None:
            raise ValueError("momentum=None, a cumulative average, is not supported with ghosts; give a number")
        if stats_update not in ("mean", "sequential"):
            raise ValueError(f"stats_update is {stats_update!r}; it must be 'mean' or 'sequential'")
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device=device, dtype=dtype)
        self.ghost_size = ghost_size
        self.stats_update: StatsUpdate = stats_update
        self.deferred: list[GhostStatistics] | None = None
        """Where statistics wait for a trainer that folds them once per update; None: every forward folds."""

    def extra_repr(self) -> str:
        torchs: str = super().extra_repr()  # type: ignore[no-untyped-call]
        return f"{torchs}, ghost_size={self.ghost_size}, stats_update={self.stats_update}"

    def forward(self, x: Tensor) -> Tensor:
        self._check_input_dim(x)  # type: ignore[no-untyped-call]
        if not self.training:
            return super().forward(x)
        per_sample = x.numel() // (x.shape[0] * x.shape[1]) if x.numel() else 1
        ghosts, size = ghost_count(x.shape[0], self.ghost_size), self.ghost_size
        if min(size, x.shape[0]) * per_sample == 1:
            raise ValueError(
                f"a ghost of 1 sample has a single value per channel and no variance (batch {x.shape[0]}, ghost_size "
                f"{size}, input {tuple(x.shape)}); use a ghost_size of at least 2"
            )
        even = (ghosts - 1) * size if x.shape[0] % size or ghosts == 1 else ghosts * size
        parts = [(x[:even], even // size)] if even else []
        parts += [(x[even:], 1)] if even < x.shape[0] else []
        results = [self._normalize(part, count) for part, count in parts]
        if self.track_running_stats:
            found = GhostStatistics.of([part[1] for part in results], [p.shape[0] // c for p, c in parts])
            if self.deferred is None:
                self.fold(found)
            else:
                self.deferred.append(found)
        return results[0][0] if len(results) == 1 else torch.cat([part[0] for part in results])

    def _normalize(self, x: Tensor, ghosts: int) -> tuple[Tensor, Tensor]:
        """Normalise ``ghosts`` ghosts of equal size at once. Returns the result, and their means and unbiased variances
        (2, ghosts, channels) in the running statistics' dtype."""
        batch, channels = x.shape[0] // ghosts, x.shape[1]
        if ghosts == 1:
            together = x
        else:
            # Ghosts become further channels: (K b, C, ...) -> (b, K C, ...).
            together = x.reshape(ghosts, batch, channels, -1).transpose(0, 1).reshape(batch, ghosts * channels, -1)
        weight, bias = (None if p is None else p.repeat(ghosts) for p in (self.weight, self.bias))
        dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
        # torch writes the statistics it normalises by into buffers; with momentum 1, nothing but them.
        mean, variance = x.new_zeros(2, ghosts * channels, dtype=dtype).unbind()
        y = F.batch_norm(together, mean, variance, weight, bias, True, 1.0, self.eps)
        if ghosts > 1:
            y = y.reshape(batch, ghosts, channels, -1).transpose(0, 1).reshape(x.shape)
            if x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last):
                y = y.contiguous(memory_format=torch.channels_last)
        return y, torch.stack([mean, variance]).view(2, ghosts, channels)

    @torch.no_grad()
    def fold(self, found: GhostStatistics) -> None:
        """Fold the statistics of ghosts, which follow each other in this order, into the running ones."""
        if self.running_mean is None or self.running_var is None:
            return
        momentum = cast("float", self.momentum)
        weights = found.weights(self.stats_update, momentum)
        kept = 1.0 - momentum if self.stats_update == "mean" else (1.0 - momentum) ** len(weights)
        mean, variance = torch.einsum("k,skc->sc", weights.to(found.values), found.values)
        self.running_mean.mul_(kept).add_(mean)
        self.running_var.mul_(kept).add_(variance)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)


class GhostStatistics:
    """The statistics of some ghosts in their order.

    Attributes:
        values: (2, ghosts, channels): means and unbiased variances.
        sizes: samples of each.
    """

    def __init__(self, values: Tensor, sizes: list[int]) -> None:
        self.values, self.sizes = values, sizes

    @staticmethod
    def of(parts: list[Tensor], part_sizes: list[int]) -> GhostStatistics:
        """From parts (2, ghosts, channels), with the size of the ghosts in each."""
        sizes = [size for part, size in zip(parts, part_sizes, strict=True) for _ in range(part.shape[1])]
        return GhostStatistics(parts[0] if len(parts) == 1 else torch.cat(parts, 1), sizes)

    def weights(
        self, rule: StatsUpdate, momentum: float, *, samples: int | None = None, ghosts_after: int = 0
    ) -> Tensor:
        """(ghosts,) float64: how much each counts in the new running statistics.

        Args:
            samples: in the whole update, where these ghosts are only a part of it.
            ghosts_after: ghosts of the update that come after these.
        """
        sizes = torch.tensor(self.sizes, dtype=torch.float64)
        if rule == "mean":
            return momentum * sizes / (sizes.sum() if samples is None else samples)
        later = torch.arange(len(sizes) - 1, -1, -1, dtype=torch.float64) + ghosts_after
        return momentum * (1.0 - momentum) ** later


class GhostBatchNorm1d(GhostBatchNorm, nn.BatchNorm1d):
    """Ghost batch norm over ``(N, C)`` or ``(N, C, L)``: see :class:`GhostBatchNorm2d`\'s base for the definition."""


class GhostBatchNorm2d(GhostBatchNorm, nn.BatchNorm2d):
    """Ghost batch norm over ``(N, C, H, W)``: see :class:`GhostBatchNorm2d`\'s base for the definition."""


class GhostBatchNorm3d(GhostBatchNorm, nn.BatchNorm3d):
    """Ghost batch norm over ``(N, C, D, H, W)``: see :class:`GhostBatchNorm2d`\'s base for the definition."""


GHOSTS: dict[type[nn.Module], type[GhostBatchNorm]] = {
    nn.BatchNorm1d: GhostBatchNorm1d,
    nn.BatchNorm2d: GhostBatchNorm2d,
    nn.BatchNorm3d: GhostBatchNorm3d,
}
