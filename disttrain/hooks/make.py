"""From a recipe, and what was passed in Python, to the callbacks of a run."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from disttrain.config import Recipe
from disttrain.engine.agreement import everyone, require_agreement
from disttrain.engine.base import Engine
from disttrain.errors import InputError
from disttrain.hooks.callbacks import METHODS, Callback, Callbacks, Member
from disttrain.registry import resolve


def make_callbacks(recipe: Recipe, passed: Sequence[object], engine: Engine) -> Callbacks:
    """The recipe's callbacks and then those ``passed``, each an object on the ranks where it is called.

    Raises:
        InputError, RankError: on all ranks: one cannot be made, has no method that is called or one that is not, or the ranks
            were given different ones.
    """
    main = engine.world.is_main

    def make() -> list[Member]:
        entries = [_from_recipe(entry.name, entry.model_extra or {}, main) for entry in recipe.callbacks]
        return entries + [_passed(callback, main) for callback in passed]

    members = everyone(engine, make) if recipe.callbacks or passed or engine.world.size > 1 else []
    require_agreement(engine, {"callbacks": {"in this order": ", ".join(member.name for member in members) or "none"}})
    return Callbacks(members)


def _from_recipe(name: str, arguments: Mapping[str, Any], main: bool) -> Member:
    cls = resolve(name, {})
    if not isinstance(cls, type):
        raise InputError(f"callback {name}: expected a class, see disttrain.Callback")
    try:
        inspect.signature(cls).bind(**arguments)
    except TypeError as error:
        raise InputError(f"callback {name}: {error}; the recipe gives {', '.join(arguments) or 'none'}") from None
    here = main or getattr(cls, "every_rank", False)
    return Member(name, methods_of(name, cls), cls(**arguments) if here else None)


def _passed(callback: object, main: bool) -> Member:
    name = f"{type(callback).__module__}:{type(callback).__qualname__}"
    if isinstance(callback, type):
        raise InputError(f"callbacks: {callback.__qualname__} is a class; pass an object, {callback.__qualname__}(...)")
    here = main or getattr(callback, "every_rank", False)
    return Member(name, methods_of(name, callback), callback if here else None)


def methods_of(name: str, thing: object) -> frozenset[str]:
    """Those of the five methods that a class or an object defines.

    Raises:
        InputError: none, or one that nobody would ever call.
    """
    has = [method for method in dir(thing) if method.startswith("on_") and callable(getattr(thing, method))]
    if unknown := [method for method in has if method not in METHODS]:
        raise InputError(f"callback {name} has {', '.join(unknown)}; the methods are {', '.join(METHODS)}")
    cls = thing if isinstance(thing, type) else type(thing)
    found = frozenset(m for m in has if getattr(cls, m, None) is not getattr(Callback, m))
    if not found:
        raise InputError(f"callback {name} defines none of {', '.join(METHODS)}")
    return found
