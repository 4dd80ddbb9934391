"""The learning rate of an update, and how far it moves the schedule on."""

from __future__ import annotations

from typing import Protocol

from disttrain.config import Recipe
from disttrain.grads import NoiseScale
from disttrain.plan.plan import StepPlan
from disttrain.schedules import adascale_gain


class Measured(Protocol):
    """What measures the noise scale; asking for its estimate may cost an exchange."""

    @property
    def estimate(self) -> NoiseScale: ...


def learning_rate(
    recipe: Recipe, plan: StepPlan, *, scheduled: float, batch_size: int, noise: Measured
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
    gain, found = 1.0, noise.estimate
    if found.count and batch_size > reference:
        gain = adascale_gain(found.trace / reference, found.square_norm, batch_size / reference)
    return gain * lr, gain * min(reference, batch_size)
