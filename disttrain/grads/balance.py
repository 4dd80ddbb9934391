"""One loss out of several: weights that are learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

__all__ = ["GradNormWeights", "UncertaintyWeights"]


class UncertaintyWeights(nn.Module):
    """``sum_i exp(-s_i) L_i + s_i / 2``: weights from learned variances (Kendall, Gal and Cipolla 2018,
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
    weights take a step down the gradient of ``sum |G_i - G r_i^alpha|`` (eq. 2, the targets taken as constant) and are
    scaled to sum to the number of losses.
    Beyond the paper: weights stay above 1e-6, and where a norm is not finite (an overflow in fp16) they stay as they are.
    Losses must be positive. Nothing waits for the device.

    Args:
        names: of the losses.
        alpha: how much lagging losses are pulled (the paper: 0.12 to 1.5).
        lr: step of the weights.

    Attributes:
        values: the weights in the order of ``names``, (k,) float64; on the device of the losses after the first update.
    """

    def __init__(self, names: Sequence[str], *, alpha: float = 1.5, lr: float = 0.025) -> None:
        self.names, self.alpha, self.lr = tuple(names), alpha, lr
        self.values = torch.ones(len(self.names), dtype=torch.float64)
        self._first: Tensor | None = None

    @property
    def weights(self) -> dict[str, Tensor]:
        """The weights by name, scalars."""
        return dict(zip(self.names, self.values, strict=True))

    def update(
        self, losses: Mapping[str, Tensor | float], gradient_norms: Mapping[str, Tensor | float]
    ) -> dict[str, Tensor]:
        """Take one step and return the new weights.

        Args:
            losses: mean losses of this update, over the global batch.
            gradient_norms: norms of the gradients of the *unweighted* losses with respect to the shared layer.
        """
        now, norms = self._vector(losses), self._vector(gradient_norms)
        if self._first is None:
            self._first = now.clone()
        before, first = self.values.to(now), self._first.to(now)
        sizes, ratios = before * norms, now / first
        target = sizes.mean() * (ratios / ratios.mean()) ** self.alpha
        weights = (before - self.lr * torch.sign(sizes - target) * norms).clamp_min(1e-6)
        weights = weights * len(self.names) / weights.sum()
        self.values = torch.where(torch.isfinite(norms).all(), weights, before)
        return self.weights

    def _vector(self, values: Mapping[str, Tensor | float]) -> Tensor:
        if set(values) != set(self.names):
            raise ValueError(f"GradNormWeights: got losses {sorted(values)}; expected {sorted(self.names)}")
        return torch.stack([torch.as_tensor(values[name], dtype=torch.float64) for name in self.names]).detach()

    def state_dict(self) -> dict[str, list[float] | None]:
        """The weights and the first losses, in the order of ``names``."""
        return {"weights": self.values.tolist(), "first": None if self._first is None else self._first.tolist()}

    def load_state_dict(self, state: Mapping[str, Sequence[float] | None]) -> None:
        """Restore what :meth:`state_dict` returned.

        Raises:
            ValueError: it is not a finite number for each loss.
        """
        values, first = torch.tensor(state["weights"], dtype=torch.float64), state["first"]
        begun = None if first is None else torch.tensor(first, dtype=torch.float64)
        for kept in (values, *(() if begun is None else (begun,))):
            if kept.shape != (len(self.names),) or not kept.isfinite().all():
                raise ValueError(
                    f"GradNormWeights: {str(kept.tolist())[:60]} is not a finite number for each of {self.names}"
                )
        self.values, self._first = values, begun
