"""Objects that a recipe names: whose recipe it is decides whether they are made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from disttrain.config.sections.base import PASSED, Open, Section
from disttrain.config.sections.recipe import Recipe
from disttrain.errors import InputError

OURS = ("disttrain.study.until:Until", "disttrain.study.watch:Watch")
"""Callbacks that a study and branches name in their recipes: whatever their arguments are, all that they do is end a run. These
whole names and no others: under `disttrain.` lie functions that fetch and open what they are told to."""


def outside_objects(recipe: Recipe) -> dict[str, str]:
    """Key -> ``pkg.mod:Object`` of everything that the recipe has made by something other than a short name of ours.

    ``timm:`` and ``torchvision:`` models are among them, since their arguments may name files and addresses, and so are long
    names of disttrain's own functions, whose arguments no section checks; the callbacks :data:`OURS` are not. A sink of ours is
    one of them once it has arguments: they may say where everything is sent. What was passed in Python (:data:`PASSED`) is not:
    a name alone makes nothing of it.
    """
    sections = {key: getattr(recipe, key) for key in type(recipe).model_fields}
    sinks = {f"log.sinks[{i}]": sink for i, sink in enumerate(recipe.log.sinks) if ":" in sink.name or sink.model_extra}
    listed = {f"callbacks[{i}]": entry for i, entry in enumerate(recipe.callbacks) if entry.name not in OURS} | sinks
    named = {
        (key, "name"): getattr(section, "name", "")
        for key, section in (sections | listed).items()
        if isinstance(section, Open)
    }
    inner = {
        (key, field): getattr(section, field)
        for key, section in sections.items()
        if isinstance(section, Section)
        for field in section.objects
    }
    return {
        f"{key}.{field}": str(name)
        for (key, field), name in (named | inner).items()
        if name is not None and not str(name).startswith(PASSED)
    }


def require_consent(recipe: Recipe, source: Path, overrides: Sequence[str] = ()) -> None:
    """To be called with a recipe that was found beside results, not given by the user, before anything is made of it.

    Args:
        source: the file it was read from.
        overrides: given by the user; a name that stands in one has consent.

    Raises:
        InputError: it names objects outside disttrain; the message names each of them.
    """
    outside = {
        key: name for key, name in outside_objects(recipe).items() if not any(name in text for text in overrides)
    }
    if outside:
        named = ", ".join(f"{key.removesuffix('.name')} {name}" for key, name in outside.items())
        raise InputError(
            f"{source} names code outside disttrain: {named}. Whoever wrote that file would have it run here: pass --trust "
            "(in Python, trust=True) if you trust it, or give the recipe yourself where the command takes one"
        )
