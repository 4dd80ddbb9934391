"""Reading and writing recipes."""

from __future__ import annotations

import difflib
import stat
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from disttrain.config import overrides as override
from disttrain.config.explain import explain
from disttrain.config.problems import Problem, RecipeError
from disttrain.config.recipe import Recipe
from disttrain.config.strict_yaml import parse, scalar

MAX_BYTES = 2**20
# What says how a run is executed, observed, or how long it goes on, and may change when it is resumed.
EXECUTION_KEYS = (
    *("name", "epochs", "samples", "updates", "early_stopping"),
    *("batch.per_rank_max", "data.workers", "data.prefetch", "evaluate.batch", "checkpoint", "log", "communication"),
)


def load_recipe(path: Path | None, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe and check all of it.

    Args:
        path: the file; None for the built-in default.
        overrides: ``key.path=value``, applied before the checks.

    Raises:
        RecipeError: with every mistake that was found.
    """
    name = "the default recipe" if path is None else str(path)
    document = parse(_read(path), name)
    if document.data is None and not document.problems:
        raise RecipeError([Problem(name, "", "is empty; a recipe needs at least task, batch, optimizer and a length")])
    if not isinstance(document.data, dict):
        raise RecipeError(
            [*document.problems, Problem(f"{name}:1", "", "a recipe is a mapping of sections, key: value", 1)]
        )
    origins = override.apply(document, overrides)
    if document.data.get("name") is None and path is not None:
        document.data["name"] = _stem(path)
    try:
        recipe = Recipe.model_validate(document.data)
    except ValidationError as error:
        document.problems += explain(error, document.data, document.lines, origins, name)
    if document.problems:
        raise RecipeError(document.problems)
    return recipe


def dump_recipe(recipe: Recipe) -> str:
    """The resolved recipe as YAML, every default written out; :func:`load_recipe` gives the same recipe back."""
    return yaml.dump(recipe.model_dump(by_alias=True, mode="json"), Dumper=_Dumper, sort_keys=False, width=100)


def recipe_schema() -> dict[str, Any]:
    """JSON Schema of a recipe."""
    return Recipe.model_json_schema(by_alias=True)


def flatten(recipe: Recipe) -> dict[str, Any]:
    """Every setting by its dotted key."""
    found: dict[str, Any] = {}

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, Mapping):
            for key, inner in value.items():
                walk(f"{prefix}.{key}" if prefix else key, inner)
        else:
            found[prefix] = value

    walk("", recipe.model_dump(by_alias=True, mode="json"))
    return found


def recipe_differences(saved: Recipe, given: Recipe) -> list[str]:
    """``key: saved -> given`` for each difference that makes it another training run."""
    a, b = flatten(saved), flatten(given)
    lines = []
    for key in dict.fromkeys([*a, *b]):
        executes = any(key == prefix or key.startswith(f"{prefix}.") for prefix in EXECUTION_KEYS)
        if not executes and a.get(key) != b.get(key):
            lines.append(f"{key}: {a.get(key, '(absent)')} -> {b.get(key, '(absent)')}")
    return lines


def _read(path: Path | None) -> str:
    if path is None:
        return resources.files("disttrain.config").joinpath("default.yaml").read_text(encoding="utf-8")
    name = str(path)

    def refuse(message: str) -> RecipeError:
        return RecipeError([Problem(name, "", message)])

    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise refuse("is not a file" if not path.is_dir() else "is a directory; expected a recipe file")
        if found.st_size > MAX_BYTES:
            raise refuse(f"has {found.st_size:,} bytes; a recipe has at most {MAX_BYTES:,}")
        raw = path.read_bytes()
    except FileNotFoundError:
        raise refuse(f"there is no such file{_neighbour(path)}") from None
    except OSError as error:
        raise refuse(f"cannot be read: {error.strerror}") from None
    if b"\0" in raw:
        raise refuse("holds NUL bytes; expected UTF-8 text")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise refuse(f"is not UTF-8 text (byte {error.start})") from None


def _neighbour(path: Path) -> str:
    try:
        names = [p.name for p in path.parent.iterdir() if p.suffix in (".yaml", ".yml")]
    except OSError:
        return ""
    close = difflib.get_close_matches(path.name, names, 1)
    return f"; did you mean {path.parent / close[0]}?" if close else ""


def _stem(path: Path) -> str:
    """The file's name, fit for a directory."""
    stem = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in path.stem).lstrip("._-")
    return stem or "run"


class _Dumper(yaml.SafeDumper):
    """Quotes every string that our reader would take for something else."""


def _string(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    style = None if isinstance(scalar(text), str) else "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _string)
