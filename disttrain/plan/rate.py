"""The learning rate of an update, and how far it moves the schedule on."""

from __future__ import annotations

from disttrain.schedules import adascale_gain
from disttrain.training.state import Run


def learning_rate(run: Run, batch_size: int) -> tuple[float, float]:
    """For an update with ``batch_size`` samples: the learning rate, and the samples by which the schedule moves on.

    Usually ``lr(samples seen)`` and ``batch_size``. Under AdaScale (Johnson et al. 2020, arXiv:2007.05105) the schedule counts in
    samples of reference batches that the update is worth: with the measured gain ``r``, ``r * lr`` and
    ``r * reference_batch``, where ``r`` lies between 1 and batch / reference batch. Before the first measurement it is 1.
    """
    optimizer, lr = run.recipe.optimizer, run.plan.lr(run.progress.scheduled)
    if optimizer.lr_scaling != "adascale" or optimizer.reference_batch is None:
        return lr, batch_size
    assert run.noise is not None
    estimate, reference = run.noise.estimate, optimizer.reference_batch
    gain = 1.0
    if estimate.count and batch_size > reference:
        gain = adascale_gain(estimate.trace / reference, estimate.square_norm, batch_size / reference)
    return gain * lr, gain * min(reference, batch_size)
