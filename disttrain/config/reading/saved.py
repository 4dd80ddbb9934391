"""The recipe that a run directory holds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from disttrain.config.reading.load import load_recipe
from disttrain.config.reading.trust import require_consent
from disttrain.config.sections.recipe import Recipe
from disttrain.errors import InputError


def saved_recipe(run_dir: Path, overrides: Sequence[str] = (), *, trust: bool) -> Recipe:
    """The resolved recipe of a run.

    Args:
        overrides: given by the user; a name that stands in one has consent.
        trust: whether it may name objects outside disttrain.

    Raises:
        InputError: the directory holds no run, the recipe is damaged, or names such objects without consent.
    """
    path = run_dir / "recipe.yaml"
    if not path.is_file():
        raise InputError(f"{run_dir} holds no run: {path.name} is missing")
    recipe = load_recipe(path, overrides)
    if not trust:
        require_consent(recipe, path, overrides)
    return recipe
