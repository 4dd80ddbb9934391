"""A recipe as text: to store it with the run, and to compare two of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import yaml

from disttrain.config.reading.problems import printable
from disttrain.config.reading.strict_yaml import scalar
from disttrain.config.sections.recipe import Recipe
from disttrain.version import __version__

# What says how a run is executed, observed, or how long it goes on, and may change when it is resumed.
EXECUTION_KEYS = (
    *("name", "epochs", "samples", "updates", "early_stopping"),
    *("batch.per_rank_max", "data.workers", "data.prefetch", "evaluate.batch", "checkpoint", "log", "communication"),
    "callbacks",
)


WRITTEN_BY = "# disttrain "
"""How the first line of a stored recipe begins, before the version."""


def dump_recipe(recipe: Recipe) -> str:
    """The resolved recipe as YAML, every default written out; :func:`load_recipe` gives the same recipe back."""
    return f"{WRITTEN_BY}{__version__}\n" + yaml.dump(
        recipe.model_dump(by_alias=True, mode="json"), Dumper=_Dumper, sort_keys=False, width=100
    )


def flatten(recipe: Recipe) -> dict[str, Any]:
    """Every setting by its dotted key."""
    return by_dotted_key(recipe.model_dump(by_alias=True, mode="json"))


def by_dotted_key(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Likewise, of a recipe that is plain data already."""
    found: dict[str, Any] = {}

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, Mapping) and value:
            for key, inner in value.items():
                walk(f"{prefix}.{key}" if prefix else key, inner)
        else:
            found[prefix] = value

    walk("", settings)
    return found


def recipe_differences(saved: Recipe, given: Recipe) -> list[str]:
    """``key: saved -> given`` for each difference that makes it another training run."""
    before, after = flatten(saved), flatten(given)
    lines = []
    for key in dict.fromkeys([*before, *after]):
        executes = any(key == prefix or key.startswith(f"{prefix}.") for prefix in EXECUTION_KEYS)
        if not executes and _written(before, key) != _written(after, key):
            lines.append(printable(f"{key}: {_written(before, key)} -> {_written(after, key)}"))
    return lines


def _written(settings: Mapping[str, Any], key: str) -> str:
    """As text, because to Python 1, 1.0 and true are equal, and to the user's own class they need not be."""
    return json.dumps(settings[key], ensure_ascii=False) if key in settings else "(absent)"


class _Dumper(yaml.SafeDumper):
    """Quotes every string that our reader would take for something else, and never writes an alias."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _string(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    style = None if isinstance(scalar(text), str) else "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _string)
