"""From a file and overrides to a checked recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path, PurePath
from typing import Any

from pydantic import ValidationError

from disttrain.config.reading import overrides as override
from disttrain.config.reading.dump import WRITTEN_BY
from disttrain.config.reading.explain import explain
from disttrain.config.reading.problems import Problem, RecipeError, printable
from disttrain.config.reading.source import read_text
from disttrain.config.reading.strict_yaml import Document, parse
from disttrain.config.sections.recipe import Recipe
from disttrain.version import __version__


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
    text = default.read_text(encoding="utf-8") if path is None else read_text(path)
    document = parse(text, name)
    return _checked(document, overrides, name, None if path is None else _stem(path), text)


def check_recipe(data: Mapping[str, Any], overrides: Sequence[str] = ()) -> Recipe:
    """A recipe from plain data, with the same checks.

    Raises:
        RecipeError: with every mistake that was found.
    """
    return _checked(Document(_plain(data)), overrides, "the recipe", None)


def _plain(value: Any) -> Any:
    """A copy, of dicts, lists, texts and numbers as YAML gives them: a path or a number of NumPy's is natural in Python."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if type(value).__module__ == "numpy" and hasattr(value, "item"):  # NumPy is not imported to read a recipe
        return value.item()
    if isinstance(value, PurePath):
        return str(value)
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def _checked(document: Document, overrides: Sequence[str], name: str, stem: str | None, text: str = "") -> Recipe:
    if document.data is None and not document.problems:
        raise RecipeError([Problem(name, "", "is empty; a recipe needs at least task, batch, optimizer and a length")])
    if not isinstance(document.data, dict):
        line = document.lines.get((), 1)
        wrong = Problem(f"{name}:{line}", "", "a recipe is a mapping of sections, key: value", line)
        raise RecipeError([*document.problems, wrong])
    origins = override.apply(document, overrides)
    if document.data.get("name") is None and stem is not None:
        document.data["name"] = stem
    try:
        recipe = Recipe.model_validate(document.data)
    except ValidationError as error:
        found = [*document.problems, *explain(error, document, origins, name), *_other_version(text, name)]
        raise RecipeError(found) from None
    if document.problems:
        raise RecipeError(document.problems)
    return recipe


def recipe_schema() -> dict[str, Any]:
    """JSON Schema of a recipe."""
    return Recipe.model_json_schema(by_alias=True)


def _other_version(text: str, name: str) -> list[Problem]:
    """What may be behind mistakes in a recipe that a run of another version has stored (see :func:`dump_recipe`)."""
    wrote = text.partition("\n")[0].removeprefix(WRITTEN_BY)
    if not text.startswith(WRITTEN_BY) or wrote == __version__:
        return []
    other = f"was written by disttrain {printable(wrote)[:40]}, and this is {__version__}, which has other keys"
    return [Problem(name, "", f"{other}: go on with the version that wrote it, or change the keys above")]


def _stem(path: Path) -> str:
    """The file's name, fit for a directory."""
    stem = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in path.stem).lstrip("._-")
    return stem[:100] or "run"
