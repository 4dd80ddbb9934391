"""Dropout that a module draws by a function call in its forward: ``F.dropout``, ``dropout_p`` of attention."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import CheckpointFunction

from disttrain.errors import InputError
from disttrain.nn.dropout.context import NOW
from disttrain.nn.dropout.layers import Drawn, kept, scaled


class Functional(Drawn):
    """Mixed into a module that calls ``F.dropout`` or ``F.scaled_dot_product_attention`` with a probability: in training these
    calls draw this module's masks, all else is as it was."""

    training: bool

    def forward(self, *arguments: Any, **named: Any) -> Any:
        if not self.training or NOW.words is None:
            return super().forward(*arguments, **named)  # type: ignore[misc]
        with _Calls(self):
            return super().forward(*arguments, **named)  # type: ignore[misc]


class _Calls(TorchFunctionMode):
    """Answers the calls of a module that draw."""

    def __init__(self, module: Drawn) -> None:
        super().__init__()
        self._module = module

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.dropout:
            refuse_inner_checkpoint(self._module)
            return dropped(self._module, *args, **kwargs)
        if func is F.scaled_dot_product_attention and (kwargs.get("dropout_p") or (len(args) > 4 and args[4])):
            refuse_inner_checkpoint(self._module)
            return attention(self._module, *args, **kwargs)
        return func(*args, **kwargs)


def refuse_inner_checkpoint(module: Drawn) -> None:
    """A checkpoint that begins inside of the module's forward is computed again without it: the calls there would be torch's,
    with other masks, and the gradients silently wrong.

    Raises:
        InputError: there is one around the call at hand.
    """
    if torch.compiler.is_compiling():  # the compiler recomputes what it has traced, masks included
        return
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code is not Functional.forward.__code__:
        if frame.f_code.co_filename == CheckpointFunction.forward.__code__.co_filename:
            raise InputError(
                f"dropout {module.drawn_as[1] if module.drawn_as else ''} ({type(module).__name__}): F.dropout, or dropout_p of "
                "attention, is called inside of torch.utils.checkpoint inside of the module's own forward, where recomputation "
                "cannot draw the same masks; put the checkpoint around the whole module, or use nn.Dropout as a layer"
            )
        frame = frame.f_back


def dropped(module: Drawn, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """``F.dropout`` with the masks of a module."""
    if not training or p == 0.0 or input.numel() == 0:
        return input
    return scaled(input, kept(module, input, input.shape, p), p, inplace)


def attention(
    module: Drawn,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """``F.scaled_dot_product_attention`` with the masks of a module: the formula of its documentation, not fused.

    Shape: query ``(n, heads, t, d)``, key and value ``(n, heads, s, d)``, or with fewer heads where ``enable_gqa``.
    """
    return attended(module, query, key, value, attn_mask, dropout_p, is_causal, scale, enable_gqa)[0]


def attended(
    module: Drawn,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None,
    p: float,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> tuple[Tensor, Tensor]:
    """The same, and the weights ``(n, heads, t, s)`` after dropout."""
    if enable_gqa:
        key, value = (x.repeat_interleave(query.shape[-3] // x.shape[-3], dim=-3) for x in (key, value))
    scores = (query * (1.0 / math.sqrt(query.shape[-1]) if scale is None else scale)) @ key.transpose(-2, -1)
    if is_causal:
        ones = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device)
        scores = scores.masked_fill(~ones.tril(), -math.inf)
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attn_mask, -math.inf)
    elif attn_mask is not None:
        scores = scores + attn_mask
    weights = torch.softmax(scores, dim=-1)
    weights = scaled(weights, kept(module, weights, weights.shape, p, dim=0), p)
    return weights.to(value.dtype) @ value, weights


class MultiheadAttention(Drawn, nn.MultiheadAttention):
    """Mixed into ``nn.MultiheadAttention``: in training, dropout of its weights draws this module's masks."""

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        if not self.training or self.dropout == 0.0 or NOW.words is None:
            return super().forward(
                query, key, value, key_padding_mask, need_weights, attn_mask, average_attn_weights, is_causal
            )
        if query.dim() != 3:
            raise InputError(
                f"{type(self).__name__} with dropout: its input is of shape {tuple(query.shape)}, without samples"
            )
        if not self.batch_first:
            query, key, value = (x.transpose(0, 1) for x in (query, key, value))
        q, k, v = (
            F.linear(x, weight, bias).view(*x.shape[:2], self.num_heads, self.head_dim).transpose(1, 2)
            for x, weight, bias in zip((query, key, value), *self._projections(), strict=True)
        )
        # As torch has it, a causal hint comes with the mask itself.
        mask = additive(attn_mask, q.dtype)
        if mask is not None and mask.dim() == 3:
            mask = mask.view(len(q), self.num_heads, *mask.shape[1:])
        padding = additive(key_padding_mask, q.dtype)
        if padding is not None:
            padding = padding[:, None, None, :]
            mask = padding if mask is None else mask + padding
        mixed, weights = attended(self, q, k, v, mask, self.dropout)
        out = self.out_proj(mixed.transpose(1, 2).flatten(2))
        if not self.batch_first:
            out = out.transpose(0, 1)
        if not need_weights:
            return out, None
        return out, weights.mean(dim=1) if average_attn_weights else weights

    def _projections(self) -> tuple[Sequence[Tensor], Sequence[Tensor | None]]:
        weights: Sequence[Tensor] = (
            self.in_proj_weight.chunk(3)
            if self._qkv_same_embed_dim
            else (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        )
        return weights, (None, None, None) if self.in_proj_bias is None else self.in_proj_bias.chunk(3)


def additive(mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """A mask of ``nn.MultiheadAttention`` (bool: True is left out) as what is added to the scores."""
    if mask is None or mask.dtype != torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=dtype).masked_fill(mask, -math.inf)
