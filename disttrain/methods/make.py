"""From a recipe to the methods of its run. What it does not ask for is not made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from disttrain.config.sections.optimizers import BatchInvariantAdam
from disttrain.data.batch import Batch
from disttrain.methods.added_noise import Change, Weigh, make_gradient_noise, make_sample_weights
from disttrain.methods.averaging import Average, MovingAverage, make_average
from disttrain.methods.base import Context, Method, Methods
from disttrain.methods.batch_norm import RunningStatistics
from disttrain.methods.batch_size import AdaptiveBatch, BatchSize, make_batch_size
from disttrain.methods.clipping import Clip, make_clip
from disttrain.methods.dropout import RankDropout, make_dropout
from disttrain.methods.layer_ratios import LayerRatios
from disttrain.methods.learned import make_loss_weights
from disttrain.methods.loss_weights import LossWeights
from disttrain.methods.momentum import MomentumCycle
from disttrain.methods.noise.make import make_noise_meter
from disttrain.methods.noise.meter import NoiseMeter, PieceMeter
from disttrain.methods.numerics import NumericsWatch
from disttrain.methods.penalties import make_penalties
from disttrain.methods.slice_squares import SliceSquares
from disttrain.methods.update_angle import UpdateAngle


@dataclass(frozen=True, slots=True)
class Parts:
    """The methods of a run: those that a step calls by name, and ``all`` that have state or watch.

    Attributes:
        sample_weights: gives the weights of a batch's losses.
        penalties: changes of the gradient before it is clipped.
        clip: always there, because the norm is wanted anyway.
        gradient_noise: changes after that.
        batch_size: how large the batches are that come next.
    """

    loss_weights: LossWeights
    sample_weights: Callable[[Batch], Weigh]
    penalties: Sequence[Change]
    clip: Clip
    gradient_noise: Sequence[Change]
    noise_scale: NoiseMeter
    batch_size: BatchSize
    statistics: RunningStatistics
    average: Average
    dropout: RankDropout
    all: Methods


def make_methods(context: Context) -> Parts:
    """Everything that the recipe adds to a plain step.

    Raises:
        InputError: it asks for what its model, optimizer or plan cannot give.
    """
    recipe = context.recipe
    loss_weights, noise_scale = make_loss_weights(context), make_noise_meter(context)
    batch_size = make_batch_size(context, noise_scale)
    statistics, average = RunningStatistics(context), make_average(context)
    clip, penalties = make_clip(recipe.gradient), make_penalties(recipe, context.model, context.trained)
    by_name: dict[str, Method] = {"loss_weights": loss_weights}
    if statistics.layers:
        by_name["statistics"] = statistics
    if isinstance(average, MovingAverage):
        by_name["average"] = average
    if isinstance(noise_scale, PieceMeter):
        by_name["noise_scale"] = noise_scale
    if isinstance(batch_size, AdaptiveBatch):
        by_name["batch_size"] = batch_size
    for name, wanted, method in (
        ("slice_squares", isinstance(recipe.optimizer, BatchInvariantAdam), SliceSquares),
        ("momentum", context.plan.momentum is not None, MomentumCycle),
        ("layer_ratios", recipe.log.layer_ratios, LayerRatios),
        ("numerics", recipe.numerics is not None, NumericsWatch),
        ("update_angle", recipe.update_angle is not None, UpdateAngle),
    ):
        if wanted:
            by_name[name] = method(context)
    return Parts(
        loss_weights=loss_weights,
        sample_weights=make_sample_weights(recipe),
        penalties=penalties,
        clip=clip if penalties else noise_scale.through(clip),
        gradient_noise=make_gradient_noise(recipe),
        noise_scale=noise_scale,
        batch_size=batch_size,
        statistics=statistics,
        average=average,
        dropout=make_dropout(context),
        all=Methods(by_name),
    )
