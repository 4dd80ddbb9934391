"""Ghost batch norm: batch norm over small parts of a large batch (Hoffer, Hubara and Soudry 2017, arXiv:1705.08741,
algorithm 1)."""

from __future__ import annotations

from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

StatsUpdate = Literal["mean", "sequential"]


class GhostBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm in which each ghost, ``ghost_size`` consecutive samples, is normalised by its own mean and variance;
    weight and bias are shared. In evaluation it is torch's batch norm, and ``state_dict`` has torch's keys and shapes.

    The last ghost takes the remainder too; a batch of fewer samples than ``ghost_size`` is one ghost, and an empty batch
    none. The paper's code makes ghosts in the same way, one chunk after the other; some libraries interleave them.

    Running statistics ``R`` (mean, and unbiased variance as torch keeps it; the paper keeps the deviation) are folded
    from those of the ``K`` ghosts, ``s_1`` to ``s_K``, by one of two rules:

    - ``sequential`` (the authors' code): one after the other,
      ``R = (1 - momentum)^K R + sum momentum (1 - momentum)^(K - l) s_l``. The
      formula printed in the paper does not sum to one and is read as this.
    - ``mean`` (as in Keras): ``R = (1 - momentum) R + momentum * mean s_l``, the mean weighted by the ghosts' sizes. The
      time over which it averages, in updates, does not depend on the number of ghosts.

    The same horizon needs different momenta: ``sequential`` with ``1 - (1 - momentum)^(1/K)`` decays as ``mean`` does.
    Every training forward folds, unless a trainer has taken over (:func:`disttrain.nn.defer_statistics`).

    Args:
        num_features: channels.
        ghost_size: samples in a ghost.
        eps, momentum, affine, track_running_stats, device, dtype: as in torch.
        stats_update: the rule.

    Raises:
        ValueError: ``ghost_size`` is below 1, ``stats_update`` is unknown, or ``momentum`` is None (a cumulative average);
            in a training forward: a ghost has a single value per channel.
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
        if momentum is None:
            raise ValueError("momentum=None, a cumulative average, is not supported with ghosts; give a number")
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device=device, dtype=dtype)
        self.cut(ghost_size, stats_update)
        self.deferred: GhostStatistics | None = None
        """Where statistics wait for a trainer that folds them once per update; None: every forward folds."""
        self.share: Tensor | None = None
        """How much of the true running statistics this rank's are (:mod:`disttrain.nn.statistics`); None: all."""

    def cut(self, ghost_size: int, stats_update: StatsUpdate) -> None:
        """Set the size of the ghosts and the rule.

        Raises:
            ValueError: see the class.
        """
        if ghost_size < 1:
            raise ValueError(f"ghost_size is {ghost_size}; it must be at least 1")
        if stats_update not in ("mean", "sequential"):
            raise ValueError(f"stats_update is {stats_update!r}; it must be 'mean' or 'sequential'")
        self.ghost_size = ghost_size
        self.stats_update: StatsUpdate = stats_update

    def extra_repr(self) -> str:
        torchs: str = super().extra_repr()  # type: ignore[no-untyped-call]
        return f"{torchs}, ghost_size={self.ghost_size}, stats_update={self.stats_update}"

    def forward(self, x: Tensor) -> Tensor:
        self._check_input_dim(x)  # type: ignore[no-untyped-call]
        if not self.training:
            return super().forward(x)
        samples, size = x.shape[0], self.ghost_size
        if samples == 0:
            return F.batch_norm(x, None, None, self.weight, self.bias, True, 0.0, self.eps)
        if min(size, samples) * x[0, 0].numel() == 1:
            raise ValueError(
                f"a ghost of 1 sample has a single value per channel and no variance (batch {samples}, ghost_size "
                f"{size}, input {tuple(x.shape)}); use a ghost_size of at least 2"
            )
        ghosts = ghost_count(samples, size)
        # All but the last ghost are of equal size, and the last one too where nothing remains.
        even = ghosts if ghosts * size == samples else ghosts - 1
        parts = [(x[: even * size], even)] if even else []
        parts += [(x[even * size :], 1)] if even < ghosts else []
        collected = self.deferred
        if collected is None and self.running_mean is not None:
            collected = GhostStatistics.none(x.new_empty(0, dtype=_wide(x.dtype)), self.num_features)
        results = []
        for part, count in parts:
            y, found = self._normalize(part, count)
            results.append(y)
            if collected is not None:
                collected.add(found, part.shape[0] // count, self.stats_update, cast("float", self.momentum))
        if collected is not None and self.deferred is None:
            kept = self.kept(ghosts)
            self.fold(collected, kept, cast("float", self.momentum) / samples if self.stats_update == "mean" else 1.0)
        return results[0] if len(results) == 1 else torch.cat(results)

    def _normalize(self, x: Tensor, ghosts: int) -> tuple[Tensor, Tensor]:
        """Normalise ``ghosts`` ghosts of equal size at once. Returns the result, and their means and unbiased variances
        (2, ghosts, channels) in at least float32."""
        batch, channels, dtype = x.shape[0] // ghosts, x.shape[1], _wide(x.dtype)
        if ghosts == 1:
            together = x
        else:
            # Ghosts become further channels: (K b, C, ...) -> (b, K C, ...).
            together = x.reshape(ghosts, batch, channels, -1).transpose(0, 1).reshape(batch, ghosts * channels, -1)
        # torch wants statistics and weights in one dtype.
        weight, bias = (None if p is None else p.to(dtype).repeat(ghosts) for p in (self.weight, self.bias))
        # torch writes the statistics it normalises by into buffers; with momentum 1, nothing but them.
        mean, variance = (x.new_zeros(ghosts * channels, dtype=dtype) for _ in range(2))
        y = F.batch_norm(together, mean, variance, weight, bias, True, 1.0, self.eps)
        if ghosts > 1:
            y = y.reshape(batch, ghosts, channels, -1).transpose(0, 1).reshape(x.shape)
            last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(x.dim())
            if last is not None and x.is_contiguous(memory_format=last):
                y = y.contiguous(memory_format=last)
        return y, torch.stack([mean, variance]).view(2, ghosts, channels)

    def kept(self, ghosts: int) -> float:
        """How much of the running statistics is left after ``ghosts`` ghosts."""
        left = 1.0 - cast("float", self.momentum)
        return left if self.stats_update == "mean" else left**ghosts

    @torch.no_grad()
    def fold(self, found: GhostStatistics, kept: float | Tensor, factor: float | Tensor) -> None:
        """``R = kept * R + factor * found``."""
        for running, value in zip((self.running_mean, self.running_var), found.values, strict=True):
            cast("Tensor", running).mul_(kept).add_(value * factor)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)


class GhostStatistics:
    """The statistics of some ghosts that follow each other, summed up; stays on their device.

    Attributes:
        values: (2, channels): of means and of unbiased variances. By rule ``mean``, the sum over the ghosts times their sizes;
            by rule ``sequential``, what running statistics of zero become.
        counts: (2,) float64, of which ``weight`` and ``ghosts`` are views: what ``values`` would be if every statistic were one,
            and how many ghosts. Not two tensors without dimensions: under torch.compile such float64 tensors on the CPU count as
            Python's numbers, and what is added to them is lost (torch 2.13).
    """

    def __init__(self, values: Tensor, counts: Tensor) -> None:
        self.values, self.counts = values, counts

    @property
    def weight(self) -> Tensor:
        return self.counts[0]

    @property
    def ghosts(self) -> Tensor:
        return self.counts[1]

    @staticmethod
    def none(like: Tensor, channels: int) -> GhostStatistics:
        """Of no ghost."""
        return GhostStatistics(like.new_zeros(2, channels), like.new_zeros(2, dtype=torch.float64))

    def add(self, found: Tensor, size: int, rule: StatsUpdate, momentum: float) -> None:
        """Add the statistics (2, ghosts, channels) of further ghosts of ``size`` samples each."""
        ghosts = found.shape[1]
        # No matrix product here: autocast and TF32 would round it.
        if rule == "mean":
            self.values.add_(found.sum(1) * size)
            self.weight.add_(size * ghosts)
        else:
            later = torch.arange(ghosts - 1, -1, -1, dtype=found.dtype, device=found.device)
            weights = momentum * (1.0 - momentum) ** later
            left = (1.0 - momentum) ** ghosts
            self.values.mul_(left).add_((found * weights[:, None]).sum(1))
            self.weight.mul_(left).add_(1.0 - left)
        self.ghosts.add_(ghosts)


class GhostBatchNorm1d(GhostBatchNorm, nn.BatchNorm1d):
    """:class:`GhostBatchNorm` in the place of ``torch.nn.BatchNorm1d``. Shape: ``(N, C)`` or ``(N, C, L)``, to the same."""


class GhostBatchNorm2d(GhostBatchNorm, nn.BatchNorm2d):
    """:class:`GhostBatchNorm` in the place of ``torch.nn.BatchNorm2d``. Shape: ``(N, C, H, W)``, to the same."""


class GhostBatchNorm3d(GhostBatchNorm, nn.BatchNorm3d):
    """:class:`GhostBatchNorm` in the place of ``torch.nn.BatchNorm3d``. Shape: ``(N, C, D, H, W)``, to the same."""


GHOSTS: dict[type[nn.Module], type[GhostBatchNorm]] = {
    nn.BatchNorm1d: GhostBatchNorm1d,
    nn.BatchNorm2d: GhostBatchNorm2d,
    nn.BatchNorm3d: GhostBatchNorm3d,
}


def ghost_count(samples: int, ghost_size: int) -> int:
    """Ghosts in a batch: ``samples // ghost_size``, at least 1 for a batch that is not empty.

    Raises:
        ValueError: ``ghost_size`` is below 1.

    Examples:
        >>> ghost_count(10, 4), ghost_count(3, 4), ghost_count(0, 4)
        (2, 1, 0)
    """
    if ghost_size < 1:
        raise ValueError(f"ghost_size is {ghost_size}; it must be at least 1")
    return max(samples // ghost_size, 1) if samples else 0


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32
