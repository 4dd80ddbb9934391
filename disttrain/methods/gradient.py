"""The large-batch methods of a recipe, as the functions an update calls. What a recipe does not ask for is not called."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from disttrain import grads
from disttrain.config import Recipe
from disttrain.data.batch import Batch
from disttrain.data.randomness import bits, normal
from disttrain.errors import InputError

Params = Sequence[nn.Parameter]
Clip = Callable[[Params], Tensor]
"""Clips gradients in place and returns their global norm before that."""
Change = Callable[[Params, int], None]
"""Changes gradients in place before the given update, counted from 1; the same on all ranks."""
Weigh = Callable[[Batch], Tensor]
"""Weights of the losses of a rank's samples, ``(share,)`` float64 on the CPU; their mean over the global batch is 1."""


@dataclass(frozen=True, slots=True)
class Methods:
    """What happens to losses and gradients.

    Attributes:
        weigh: None: every sample counts the same.
        before_clip: parts of the gradient that no sample brings: penalties.
        clip: always there, because the norm is wanted anyway.
        after_clip: noise.
    """

    weigh: Weigh | None
    before_clip: Sequence[Change]
    clip: Clip
    after_clip: Sequence[Change]


def make_methods(recipe: Recipe, model: nn.Module) -> Methods:
    """From the sections ``gradient`` and ``loss``.

    Args:
        model: the task's own module, whose parameters penalties select by name.

    Raises:
        InputError: a penalty's pattern selects nothing.
    """
    noise = recipe.gradient.noise
    multiplicative = noise if noise is not None and noise.kind == "multiplicative" else None
    annealed = noise if noise is not None and noise.kind == "annealed" else None
    return Methods(
        weigh=None if multiplicative is None else _weigh(recipe.seed, multiplicative.match_batch),
        before_clip=_penalties(recipe, model),
        clip=_clip(recipe, model),
        after_clip=[] if annealed is None else [_annealed(recipe.seed, annealed.eta, annealed.gamma)],
    )


def _weigh(seed: int, match_batch: int) -> Weigh:
    def weigh(batch: Batch) -> Tensor:
        draws = normal(seed, batch.epoch, batch.global_ids, stream="multiplicative noise")[:, 0]
        weights = grads.sample_weights(torch.from_numpy(draws), match_batch)
        return weights[batch.before : batch.before + batch.share]

    return weigh


def _annealed(seed: int, eta: float, gamma: float) -> Change:
    def add(params: Params, update: int) -> None:
        number = int(bits(seed, 0, np.array([update]), stream="annealed noise")[0, 0])
        std = grads.annealed_variance(update - 1, eta, gamma) ** 0.5
        grads.add_noise_(params, std, seed=number)

    return add


def _clip(recipe: Recipe, model: nn.Module) -> Clip:
    settings = recipe.gradient
    if settings.clip_norm is not None:
        most = settings.clip_norm
        return lambda params: grads.clip_norm(params, most)
    if settings.clip_value is not None:
        value = settings.clip_value
        return lambda params: grads.clip_value(params, value)
    if settings.clip_layer_norm is not None:
        each = settings.clip_layer_norm
        return lambda params: grads.clip_per_layer(params, each)
    if settings.clip_adaptive is not None:
        share = settings.clip_adaptive
        return lambda params: grads.clip_adaptive(params, share)
    return grads.global_norm


def _penalties(recipe: Recipe, model: nn.Module) -> list[Change]:
    changes: list[Change] = []
    for i, penalty in enumerate(recipe.loss.penalties):
        try:
            chosen = grads.select(model, penalty.parameters)
        except ValueError as error:
            raise InputError(f"loss.penalties[{i}]: {error}") from None
        changes.append(_penalty(chosen, penalty.l1, penalty.l2))
    return changes


def _penalty(chosen: Params, l1: float, l2: float) -> Change:
    def add(params: Params, update: int) -> None:
        if l1:
            grads.add_l1_(chosen, l1)
        if l2:
            grads.add_l2_(chosen, l2)

    return add
