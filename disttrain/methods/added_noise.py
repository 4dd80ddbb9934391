"""Noise that makes a large batch train like a smaller one: on the losses of samples, or on the gradient."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from disttrain import grads
from disttrain.config import Recipe
from disttrain.data.batch import Batch
from disttrain.data.randomness import bits, normal
from disttrain.methods.clipping import Params

Change = Callable[[Params, int], None]
"""Changes gradients in place before the given update, counted from 1; the same on all ranks."""
Weigh = Callable[[int, Tensor], Tensor]
"""``(i, losses)``: the losses of micro-batch ``i``, ``(samples, ...)``, each times the weight of its sample."""


def make_sample_weights(recipe: Recipe) -> Callable[[Batch], Weigh]:
    """From ``gradient.noise`` of kind multiplicative: weights whose mean over the global batch is 1. Otherwise all weigh the
    same."""
    noise = recipe.gradient.noise
    if noise is None or noise.kind != "multiplicative":
        return lambda batch: _as_they_are

    def draw(batch: Batch) -> Weigh:
        if batch.share == 0:
            return _as_they_are
        draws = normal(recipe.seed, batch.epoch, batch.global_ids, stream="multiplicative noise")[:, 0]
        weights = grads.sample_weights(torch.from_numpy(draws), noise.match_batch)
        mine = weights[batch.before : batch.before + batch.share]
        each = torch.split(mine, [len(micro.ids) for micro in batch])
        return lambda i, losses: losses * each[i].to(losses).view(-1, *[1] * (losses.dim() - 1))

    return draw


def make_gradient_noise(recipe: Recipe) -> list[Change]:
    """From ``gradient.noise`` of kind annealed; empty without it."""
    noise = recipe.gradient.noise
    if noise is None or noise.kind != "annealed":
        return []

    def add(params: Params, update: int) -> None:
        number = int(bits(recipe.seed, 0, np.array([update]), stream="annealed noise")[0, 0])
        std = grads.annealed_variance(update - 1, noise.eta, noise.gamma) ** 0.5
        grads.add_noise_(params, std, seed=number)

    return [add]


def _as_they_are(i: int, losses: Tensor) -> Tensor:
    return losses
