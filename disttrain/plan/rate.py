"""The learning rate of an update, and how far it moves the schedule on."""

from __future__ import annotations

from disttrain.config import Recipe
from disttrain.grads import NoiseScale
from disttrain.plan.plan import StepPlan
from disttrain.schedules import adascale_gain


def learning_rate(
    recipe: Recipe, plan: StepPlan, *, scheduled: float, batch_size: int, noise: NoiseScale
) -> tuple[float, float]:
    """For an update with ``batch_size`` samples: the learning rate, and the samples by which the schedule moves on.

    Usually ``lr(scheduled)`` and ``batch_size``. Under AdaScale (Johnson et al. 2020, arXiv:2007.05105) the schedule counts in
    samples of reference batches that the update is worth: with the measured gain ``r``, ``r * lr`` and
    ``r * reference_batch``, where ``r`` lies between 1 and batch / reference batch. Before the first measurement it is 1.

    Args:
        scheduled: samples so far, as the schedule counts them.
        noise: what was measured so far; read under AdaScale only.
    """
    optimizer, lr = recipe.optimizer, plan.lr(scheduled)
    reference = optimizer.reference_batch
    if optimizer.lr_scaling != "adascale" or reference is None:
        return lr, batch_size
    gain = 1.0
    if noise.count and batch_size > reference:
        gain = adascale_gain(noise.trace / reference, noise.square_norm, batch_size / reference)
    return gain * lr, gain * min(reference, batch_size)
