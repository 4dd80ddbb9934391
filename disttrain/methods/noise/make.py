"""From a recipe to the meter of its noise scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from disttrain.config import Recipe
from disttrain.errors import InputError
from disttrain.grads import NormLayers
from disttrain.methods.base import Context
from disttrain.methods.noise.meter import WHOLE, NoiseMeter, PieceMeter
from disttrain.methods.noise.pieces import MicroBatches, Pieces, Samples
from disttrain.names import matching
from disttrain.plan.noise import measured_every
from disttrain.plan.plan import StepPlan


def make_noise_meter(context: Context) -> NoiseMeter:
    """Measures in every update for AdaScale, and otherwise as often as ``noise_scale`` says.

    Raises:
        InputError: every update is a single micro-batch, which says nothing of the noise; a group matches nothing; or the
            model has no norm layers.
    """
    recipe, plan = context.recipe, context.plan
    every = measured_every(recipe)
    if not every:
        return NoiseMeter()
    shuffled = recipe.data.order != "replacement"
    return PieceMeter(context, _pieces(context), every, plan.train_samples if shuffled else None)


def _pieces(context: Context) -> Pieces:
    recipe, plan = context.recipe, context.plan
    if recipe.noise_scale is not None and recipe.noise_scale.estimator == "norm_layers":
        layers = NormLayers(context.model, context.params)
        if not layers.params:
            raise InputError(
                "noise_scale.estimator is norm_layers, and no trained parameter is one of a LayerNorm or RMSNorm: use gradients"
            )
        return Samples(layers, _groups(recipe, context.model, layers.params))
    check_pieces(plan)
    return MicroBatches(plan, _groups(recipe, context.model, context.params))


def check_pieces(plan: StepPlan) -> None:
    """Refuse updates of a single micro-batch.

    Raises:
        InputError: nothing can be compared.
    """
    if plan.world_size * plan.accumulation < 2 and plan.largest_batch == plan.global_batch and not plan.slices.size:
        half = max(plan.global_batch // 2, 1)
        raise InputError(
            "the noise scale is measured between the micro-batches of an update, and there is only one: start more ranks, set "
            f"batch.per_rank_max to {half} or less, or set noise_scale.slice to {half} or less"
        )


def _groups(recipe: Recipe, model: nn.Module, params: Sequence[nn.Parameter]) -> Mapping[str, Sequence[nn.Parameter]]:
    """All of ``params`` under an empty name, and the recipe's groups of them.

    Raises:
        InputError: a pattern matches none of them.
    """
    among = set(params)
    named = {name: p for name, p in model.named_parameters() if p in among}
    found: dict[str, Sequence[nn.Parameter]] = {WHOLE: list(params)}
    for group, patterns in (recipe.noise_scale.groups if recipe.noise_scale is not None else {}).items():
        try:
            found[group] = [named[name] for name in matching(named, patterns, "measured parameter")]
        except ValueError as error:
            raise InputError(f"noise_scale.groups.{group}: {error}") from None
    return found
