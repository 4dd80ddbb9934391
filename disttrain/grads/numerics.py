"""A watch on the numbers: which layers' gradients vanish or explode, and what a narrower format would lose."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor, nn

FORMATS = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
VANISHING, EXPLODING = 1e-4, 1e4
"""Root mean squares so many times that of the median layer are named; layers without any gradient are not counted."""


@dataclass(frozen=True, slots=True)
class LayerNumbers:
    """One layer's gradient.

    Attributes:
        norm: 2-norm.
        rms: root mean square of an element.
        underflow: share of the elements that are not zero and would be in the format.
        overflow: share of the elements that would be infinite or are not finite already.
    """

    norm: float
    rms: float
    underflow: float
    overflow: float


@dataclass(frozen=True, slots=True)
class Numerics:
    """What :func:`numerics` found, still on the device: reading it waits once for all layers."""

    names: tuple[str, ...]
    values: Tensor
    """(layers, 4) float64: norm, rms, underflow, overflow."""

    def layers(self) -> dict[str, LayerNumbers]:
        """By parameter name."""
        return {name: LayerNumbers(*row) for name, row in zip(self.names, self.values.tolist(), strict=True)}

    def zero(self) -> list[str]:
        """Layers whose gradient is exactly zero, such as those before a scale that begins at 0."""
        return [name for name, numbers in self.layers().items() if numbers.rms == 0.0]

    def vanishing(self) -> list[str]:
        """Layers whose gradient is not zero, but less than 1e-4 of the median layer's, element by element."""
        return self._beyond(lambda rms, middle: 0.0 < rms < VANISHING * middle)

    def exploding(self) -> list[str]:
        """Layers whose gradient is more than 1e4 times the median layer's, or not finite."""
        return self._beyond(lambda rms, middle: not rms <= EXPLODING * middle)

    def _beyond(self, test: Callable[[float, float], bool]) -> list[str]:
        rms = {name: numbers.rms for name, numbers in self.layers().items()}
        moving = [value for value in rms.values() if 0.0 < value < float("inf")]
        middle = median(moving) if moving else 0.0
        return [name for name, value in rms.items() if test(value, middle)]


def numerics(named: Iterable[tuple[str, nn.Parameter]], number_format: str = "fp16", scale: float = 1.0) -> Numerics:
    """Norm, size of an element, and the shares a number format would lose, of each gradient.

    Args:
        named: ``model.named_parameters()``.
        number_format: ``fp16``, ``bf16`` or ``fp32``.
        scale: the loss scale that gradients travel with: what is lost is judged after multiplying with it.
    """
    dtype = FORMATS[number_format]
    names, rows = [], []
    for name, p in named:
        if p.grad is None:
            continue
        grad = p.grad.detach()
        narrow = (grad * scale).to(dtype)
        norm = torch.linalg.vector_norm(grad.double())
        lost = ((narrow == 0) & (grad != 0)).double().mean()
        too_large = (~narrow.isfinite()).double().mean()
        names.append(name)
        rows.append(torch.stack([norm, norm / grad.numel() ** 0.5, lost, too_large]))
    return Numerics(tuple(names), torch.stack(rows) if rows else torch.zeros(0, 4, dtype=torch.float64))
