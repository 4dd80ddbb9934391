"""From a file and overrides to a checked recipe."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from disttrain.config.reading import overrides as override
from disttrain.config.reading.explain import explain
from disttrain.config.reading.problems import Problem, RecipeError
from disttrain.config.reading.source import read_text
from disttrain.config.reading.strict_yaml import parse
from disttrain.config.sections.recipe import Recipe


def load_recipe(path: Path | None, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe and check all of it.

    Args:
        path: the file; None for the built-in default.
        overrides: ``key.path=value``, applied before the checks.

    Raises:
        RecipeError: with every mistake that was found.
    """
    name = "the default recipe" if path is None else str(path)
    default = resources.files("disttrain.config").joinpath("default.yaml")
    document = parse(default.read_text(encoding="utf-8") if path is None else read_text(path), name)
    if document.data is None and not document.problems:
        raise RecipeError([Problem(name, "", "is empty; a recipe needs at least task, batch, optimizer and a length")])
    if not isinstance(document.data, dict):
        line = document.lines.get((), 1)
        wrong = Problem(f"{name}:{line}", "", "a recipe is a mapping of sections, key: value", line)
        raise RecipeError([*document.problems, wrong])
    origins = override.apply(document, overrides)
    if document.data.get("name") is None and path is not None:
        document.data["name"] = _stem(path)
    try:
        recipe = Recipe.model_validate(document.data)
    except ValidationError as error:
        raise RecipeError([*document.problems, *explain(error, document, origins, name)]) from None
    if document.problems:
        raise RecipeError(document.problems)
    return recipe


def recipe_schema() -> dict[str, Any]:
    """JSON Schema of a recipe."""
    return Recipe.model_json_schema(by_alias=True)


def _stem(path: Path) -> str:
    """The file's name, fit for a directory."""
    stem = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in path.stem).lstrip("._-")
    return stem[:100] or "run"
