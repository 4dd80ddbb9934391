"""From a recipe to the order of its samples."""

from __future__ import annotations

from disttrain.config import Recipe
from disttrain.data import Order
from disttrain.data.order import GlobalShuffle, Partition, WithReplacement
from disttrain.data.selection import Selection


def make_order(recipe: Recipe, num_samples: int, world_size: int, chosen: Selection | None = None) -> Order:
    """The order in which samples are visited, all of them or those ``chosen``. ``parts`` defaults to the number of ranks the
    run was started with."""
    match recipe.data.order:
        case "partition":
            return Partition(num_samples, recipe.seed, recipe.data.parts or world_size, chosen)
        case "replacement":
            return WithReplacement(num_samples, recipe.seed, chosen)
        case _:
            return GlobalShuffle(num_samples, recipe.seed, chosen)
