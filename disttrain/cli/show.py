"""``disttrain show``."""

from __future__ import annotations

from typing import Annotated

import typer

from disttrain.cli.options import Words, recipe_and_overrides
from disttrain.errors import InputError


def show(
    words: Words = None,
    world_size: Annotated[int, typer.Option("--world-size", help="Number of ranks to resolve for.")] = 1,
) -> None:
    """Print the resolved plan of a recipe: everything derived, with the reason. Runs nothing."""
    from disttrain.config import load_recipe

    recipe = load_recipe(*recipe_and_overrides(words))
    if world_size < 1:
        raise InputError(f"--world-size {world_size}: expected at least 1")

    from disttrain.cli.console import print_table
    from disttrain.inference.about import about_weights
    from disttrain.methods.model import sketch
    from disttrain.plan.explain import explain
    from disttrain.plan.plan import resolve_plan
    from disttrain.tasks.make import make_task, stated_sizes

    sizes = stated_sizes(recipe)
    model, facts = sketch(recipe, make_task(recipe))
    plan = resolve_plan(recipe, sizes.train, sizes.test, world_size, facts, validation_samples=sizes.validation)
    title = f"{recipe.name or 'the default recipe'} on {world_size} rank{'s' if world_size > 1 else ''}"
    print_table(title, ("what", "value", "why"), [*explain(recipe, plan), *about_weights(recipe, plan, model)])
