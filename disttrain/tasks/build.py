"""From a recipe's ``task`` section to a task."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from disttrain.errors import InputError
from disttrain.registry import resolve
from disttrain.tasks.base import Task

TASKS = {
    "digits": "disttrain.tasks.digits:Digits",
    "fashion_mnist": "disttrain.tasks.mnist:FashionMnist",
    "mnist": "disttrain.tasks.mnist:Mnist",
    "image_folder": "disttrain.tasks.image_folder:ImageFolder",
    "text": "disttrain.tasks.text:Text",
    "synthetic": "disttrain.tasks.synthetic:Synthetic",
}


def build_task(section: Mapping[str, Any], *, seed: int = 0, label_smoothing: float = 0.0) -> Task:
    """Make the task; its data is not read yet.

    Args:
        section: ``name`` and the arguments of the class.
        seed, label_smoothing: passed where the class has a parameter of that name.

    Raises:
        InputError: the class cannot be found, is no :class:`Task`, does not take the arguments, or has no
            ``label_smoothing`` although one is asked for.
    """
    arguments = {key: value for key, value in section.items() if key != "name"}
    name = section["name"]
    cls = resolve(name, TASKS)
    if not (isinstance(cls, type) and issubclass(cls, Task)):
        raise InputError(f"task {name}: expected a subclass of disttrain.tasks.base.Task")
    parameters = inspect.signature(cls).parameters
    if label_smoothing and "label_smoothing" not in parameters:
        raise InputError(f"loss.label_smoothing is {label_smoothing}, but task {name} does not offer it")
    for key, value in (("seed", seed), ("label_smoothing", label_smoothing)):
        if key in parameters:
            arguments.setdefault(key, value)
    try:
        inspect.signature(cls).bind(**arguments)
    except TypeError as error:
        raise InputError(f"task {name}: {error}; its arguments are {', '.join(parameters) or 'none'}") from None
    made: Task = cls(**arguments)
    return made
