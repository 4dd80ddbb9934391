"""A small causal transformer."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from disttrain.errors import InputError
from disttrain.nn import GEGLU, GatedFeedForward, ReGLU, SwiGLU, initialise

GATED: dict[str, Callable[[int, int], GatedFeedForward]] = {"swiglu": SwiGLU, "geglu": GEGLU, "reglu": ReGLU}


class Transformer(nn.Module):
    """Pre-norm decoder with learned positions (GPT-2, Radford et al. 2019), whose output layer is the token embedding
    (Press and Wolf 2016, arXiv:1608.05859).

    Initialisation of GPT-2: weights N(0, 0.02^2), biases zero, and the last weight of each of the ``2 * layers`` residual
    branches smaller by the root of their number, because their results add up.

    Args:
        vocab_size: number of different tokens.
        sequence_length: longest input.
        layers, heads, width: depth, attention heads, and model width, which ``heads`` divides.
        feed_forward: ``gelu``, or with a gate and about as many parameters ``swiglu``, ``geglu`` or ``reglu``.
        init: ``xavier``, ``he`` or ``orthogonal`` for all linear layers; None: see above.
        dropout: after the embedding and at the end of each residual branch.

    Shape: ``(batch, tokens)`` int64 to ``(batch, tokens, vocab_size)``; ``tokens`` at most ``sequence_length``.

    Raises:
        InputError: ``heads`` does not divide ``width``, or ``feed_forward`` is unknown.
    """

    def __init__(
        self,
        vocab_size: int,
        sequence_length: int,
        layers: int = 4,
        heads: int = 4,
        width: int = 128,
        feed_forward: str = "gelu",
        init: str | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if width % heads:
            raise InputError(f"width is {width}, not divisible by heads {heads}")
        if feed_forward not in ("gelu", *GATED):
            raise InputError(f"feed_forward is {feed_forward!r}; it must be gelu, {', '.join(GATED)}")
        self.tokens = nn.Embedding(vocab_size, width)
        self.positions = nn.Parameter(torch.empty(sequence_length, width))
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.Sequential(*(Layer(heads, width, feed_forward, dropout) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        for name, parameter in self.named_parameters():
            if parameter.ndim > 1:
                ends_branch = name.endswith(("out.weight", "down.weight"))
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * layers) if ends_branch else 0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)
        if init is not None:
            initialise(self, init)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.dropout(self.tokens(tokens) + self.positions[: tokens.shape[1]])
        return F.linear(self.norm(self.layers(x)), self.tokens.weight)


class Layer(nn.Module):
    """Attention and a feed-forward network, each added to its input."""

    def __init__(self, heads: int, width: int, feed_forward: str, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.mlp_norm = nn.LayerNorm(width)
        self.gated = GATED[feed_forward](width, 4 * width) if feed_forward in GATED else None
        if self.gated is None:
            self.up = nn.Linear(width, 4 * width)
            self.down = nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.dropout(self.out(self._attend(self.attention_norm(x))))
        normed = self.mlp_norm(x)
        result: Tensor = x + self.dropout(
            self.down(F.gelu(self.up(normed))) if self.gated is None else self.gated(normed)
        )
        return result

    def _attend(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        q, k, v = self.qkv(x).view(batch, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return mixed.transpose(1, 2).reshape(batch, tokens, width)
