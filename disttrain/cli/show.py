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

    from rich.table import Table

    from disttrain.cli.console import console
    from disttrain.plan.explain import explain
    from disttrain.plan.plan import resolve_plan
    from disttrain.training.build import facts_of
    from disttrain.training.task import make_task, stated_sizes

    sizes = stated_sizes(recipe)
    model = facts_of(recipe, make_task(recipe))
    plan = resolve_plan(recipe, sizes.train, sizes.test, world_size, model, validation_samples=sizes.validation)
    table = Table(title=f"{recipe.name} on {world_size} rank{'s' if world_size > 1 else ''}", title_justify="left")
    for heading in ("what", "value", "why"):
        table.add_column(heading, overflow="fold")
    for line in explain(recipe, plan):
        table.add_row(*line)
    console().print(table)
