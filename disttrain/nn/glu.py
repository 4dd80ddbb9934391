"""Gated feed-forward layers of transformers (Shazeer 2020, arXiv:2002.05202)."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch.nn.functional as F
from torch import Tensor, nn


class GatedFeedForward(nn.Module, ABC):
    """``down(act(gate(x)) * up(x))`` (eq. 5 and 6, with biases as the ungated layer has them).

    Args:
        width: of input and output.
        hidden: of the ungated layer it stands in for; this one gets two thirds of it, rounded up to a multiple of 8,
            so that both have about as many parameters (section 2).

    Shape: ``(..., width)`` to ``(..., width)``.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        hidden = -(-2 * hidden // 3 // 8) * 8
        self.gate = nn.Linear(width, hidden)
        self.up = nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, width)

    @staticmethod
    @abstractmethod
    def activation(x: Tensor, /) -> Tensor:
        """Of the gate, element by element."""

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.down(self.activation(self.gate(x)) * self.up(x))
        return result


class SwiGLU(GatedFeedForward):
    """``down(silu(gate(x)) * up(x))``, ``silu(x) = x sigmoid(x)``: ``FFN_SwiGLU`` of Shazeer 2020 (arXiv:2002.05202, eq. 6)."""

    activation = staticmethod(F.silu)


class GEGLU(GatedFeedForward):
    """``down(gelu(gate(x)) * up(x))`` with the exact GELU: ``FFN_GEGLU`` of Shazeer 2020 (arXiv:2002.05202, eq. 6)."""

    activation = staticmethod(F.gelu)


class ReGLU(GatedFeedForward):
    """``down(max(gate(x), 0) * up(x))``: ``FFN_ReGLU`` of Shazeer 2020 (arXiv:2002.05202, eq. 6)."""

    activation = staticmethod(F.relu)
