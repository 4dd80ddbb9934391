"""Objects that are passed in Python, and how a recipe speaks of them."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from disttrain.config import Recipe, check_recipe, load_recipe
from disttrain.errors import InputError
from disttrain.registry import PASSED, passed
from disttrain.tasks.base import Task

AnyTask = Task | type[Task]
AnyModel = nn.Module | Callable[..., nn.Module]
AnyRecipe = str | Path | Mapping[str, Any] | Recipe


@dataclass(frozen=True, slots=True)
class Passed:
    """A task and a model of the user's, in place of those that a recipe names; None: as the recipe says.

    Raises:
        InputError: they are something else.
    """

    task: AnyTask | None = None
    model: AnyModel | None = None

    def __post_init__(self) -> None:
        task: object = self.task
        if not (task is None or isinstance(task, Task) or (isinstance(task, type) and issubclass(task, Task))):
            raise InputError(f"task= is a {type(task).__name__}; expected a disttrain.tasks.base.Task, or a subclass")
        model: object = self.model
        if not (model is None or isinstance(model, nn.Module) or callable(model)):
            raise InputError(
                f"model= is a {type(model).__name__}; expected a torch.nn.Module, or a function that makes one"
            )

    def known(self) -> AbstractContextManager[None]:
        """Inside, the names in a recipe stand for the objects. A module is copied: a run does not change what it is given."""
        model = self.model
        if isinstance(model, nn.Module):
            try:
                model = copy.deepcopy(model)
            except Exception as error:
                raise InputError(f"model= cannot be copied ({error}): pass a function that makes the module") from error
        given = {"task": self.task, "model": model}
        return passed({name: given[key] for key, name in self._names().items()})

    def overrides(self) -> list[str]:
        """What a recipe has to say."""
        return [f"{key}={{name: '{name}'}}" for key, name in self._names().items()]

    def recipe(self, given: AnyRecipe | None) -> Recipe:
        """A recipe that names these objects, all of it checked.

        Raises:
            RecipeError: with every mistake.
        """
        if given is None or isinstance(given, str | Path):
            return load_recipe(None if given is None else Path(given), self.overrides())
        if isinstance(given, Recipe):
            given = given.model_dump(by_alias=True)
        elif not isinstance(given, Mapping):
            raise InputError(f"the recipe is a {type(given).__name__}; expected a path, a dict or a disttrain.Recipe")
        return check_recipe(given, self.overrides())

    def _names(self) -> dict[str, str]:
        return {key: _name(thing) for key, thing in (("task", self.task), ("model", self.model)) if thing is not None}


def _name(thing: object) -> str:
    """Such as ``python:my_package.nets.Net``."""
    named = thing if hasattr(thing, "__qualname__") else type(thing)
    return PASSED + re.sub(r"[^\w.]", "", f"{named.__module__}.{named.__qualname__}")
