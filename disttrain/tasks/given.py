"""Calls of somebody's task that say, if they fail, what they were given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from torch import nn

from disttrain.data.tree import described

T = TypeVar("T")


def given(function: Callable[[nn.Module, Any], T], model: nn.Module, inputs: Any) -> T:
    """``function(model, inputs)``, a task's ``losses`` or ``evaluate``; an error gets a note of what ``inputs`` is: a
    dict where a tuple is unpacked fails in ways that say nothing of it."""
    try:
        return function(model, inputs)
    except Exception as error:
        error.add_note(f"{getattr(function, '__name__', 'the task')}() was given {described(inputs)}")
        raise
