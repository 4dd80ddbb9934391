"""From a recipe's ``task`` section to a task."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from disttrain.config.sections.tasks import BUILT_IN
from disttrain.errors import InputError
from disttrain.registry import resolve
from disttrain.tasks.base import Task


def build_task(section: Mapping[str, Any], *, seed: int = 0, label_smoothing: float = 0.0) -> Task:
    """Make the task; its data is not read yet.

    Args:
        section: ``name`` and the arguments of the class.
        seed, label_smoothing: passed where the class has a parameter of that name.

    Raises:
        InputError: the class cannot be found, is no :class:`Task` or lacks a method, does not take the arguments, has no
            ``label_smoothing`` although one is asked for, or contradicts itself.
    """
    name = section["name"]
    found = resolve(name, BUILT_IN)
    if isinstance(found, Task):  # passed in Python
        return _ready(name, section, found, label_smoothing)
    cls = _task_class(name, found)
    parameters = inspect.signature(cls).parameters
    if label_smoothing and "label_smoothing" not in parameters:
        raise InputError(
            f"loss.label_smoothing is {label_smoothing}, but task {name} has no parameter label_smoothing; set it to 0"
        )
    given = {key: value for key, value in section.items() if key != "name"}
    known = {"seed": seed, "label_smoothing": label_smoothing}
    arguments = {**{key: value for key, value in known.items() if key in parameters}, **given}
    try:
        inspect.signature(cls).bind(**arguments)
    except TypeError as error:
        raise InputError(
            f"task {name}: {error}. Its parameters are {', '.join(parameters) or 'none'}; "
            f"the recipe gives {', '.join(given) or 'none'}"
        ) from None
    return _consistent(name, cls(**arguments))


def _ready(name: str, section: Mapping[str, Any], task: Task, label_smoothing: float) -> Task:
    """A task that is an object already: the recipe can tell it nothing more.

    Raises:
        InputError: it wants to.
    """
    wants = ["loss.label_smoothing"] if label_smoothing else [f"task.{key}" for key in section if key != "name"]
    if wants:
        raise InputError(f"task {name} was passed as an object, and the recipe has {wants[0]}: make the object with it")
    return _consistent(name, task)


def _consistent(name: str, task: Task) -> Task:
    """``task``, if it does not contradict itself."""
    if task.items_per_sample is None and type(task).count_items is Task.count_items:
        raise InputError(f"task {name}: its items_per_sample is None, so the class has to define count_items()")
    if task.metric_names and task.metric not in task.metric_names:
        raise InputError(
            f"task {name}: metric is {task.metric!r}, which is none of its metric_names {', '.join(task.metric_names)}"
        )
    return task


def _task_class(name: str, cls: object) -> type[Task]:
    if not (isinstance(cls, type) and issubclass(cls, Task)):
        raise InputError(f"task {name}: expected a subclass of disttrain.tasks.base.Task")
    if inspect.isabstract(cls):
        missing = ", ".join(sorted(getattr(cls, "__abstractmethods__", ())))
        raise InputError(f"task {name}: the class does not define {missing}")
    return cls
