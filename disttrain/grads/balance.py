"""One loss out of several: weights that are learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn


class UncertaintyWeights(nn.Module):
    """``sum_i exp(-s_i) L_i + s_i / 2 * ...``: weights from learned variances (Kendall, Gal and Cipolla 2018,
    arXiv:1705.07115).

    With ``s_i = log sigma_i^2``, a regression loss (half the squared error, as a Gaussian likelihood has it) counts as
    ``exp(-s_i) L_i + s_i / 2`` (eq. 7), a classification loss as the same with the paper's approximation (eq. 10).
    Both are written here as ``exp(-s_i) L_i + s_i / 2``.

    Args:
        names: of the losses.

    Shape: a mapping of losses, each a scalar or ``(samples,)``, to one of that shape.
    """

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.names = tuple(names)
        self.log_variances = nn.Parameter(torch.zeros(len(self.names)))

    def forward(self, losses: Mapping[str, Tensor]) -> Tensor:
        if set(losses) != set(self.names):
            raise ValueError(f"UncertaintyWeights: got losses {sorted(losses)}; expected {sorted(self.names)}")
        parts = [torch.exp(-s) * losses[n] + s / 2 for n, s in zip(self.names, self.log_variances, strict=True)]
        return torch.stack(parts).sum(0)


class GradNormWeights:
    """Weights that make the losses' gradients of a shared layer equally large, losses that lag behind larger
    (GradNorm, Chen et al. 2018, arXiv:1711.02257, algorithm 1).

    With ``G_i = ||grad_W w_i L_i||``, mean ``G``, ``r_i`` the loss relative to its first value over the mean of these, the
    weights take a step down the gradient of ``sum |G_i - G r_i^alpha|`` and are scaled to sum to the number of losses.

    Args:
        names: of the losses.
        alpha: how much lagging losses are pulled (the paper: 0.12 to 1.5).
        lr: step of the weights.
    """

    def __init__(self, names: Sequence[str], *, alpha: float = 1.5, lr: float = 0.025) -> None:
        self.names, self.alpha, self.lr = tuple(names), alpha, lr
        self.weights = dict.fromkeys(self.names, 1.0)
        self._first: dict[str, float] | None = None

    def update(self, losses: Mapping[str, float], gradient_norms: Mapping[str, float]) -> dict[str, float]:
        """Take one step and return the new weights.

        Args:
            losses: mean losses of this update, over the global batch.
            gradient_norms: norms of the gradients of the *unweighted* losses with respect to the shared layer.
        """
        if self._first is None:
            self._first = dict(losses)
        count = len(self.names)
        sizes = {n: self.weights[n] * gradient_norms[n] for n in self.names}
        mean = sum(sizes.values()) / count
        ratios = {n: losses[n] / self._first[n] for n in self.names}
        average = sum(ratios.values()) / count
        for n in self.names:
            target = mean * (ratios[n] / average) ** self.alpha
            sign = (sizes[n] > target) - (sizes[n] < target)
            self.weights[n] = max(self.weights[n] - self.lr * sign * gradient_norms[n], 1e-6)
        total = sum(self.weights.values())
        self.weights = {n: w * count / total for n, w in self.weights.items()}
        return dict(self.weights)
