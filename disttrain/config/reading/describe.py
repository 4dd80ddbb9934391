"""What a field accepts, in words, from its type and bounds."""

from __future__ import annotations

from typing import Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen

from disttrain.config.reading.fields import models, names, selector, unwrap
from disttrain.config.sections.base import Expected


def describe(annotation: Any, metadata: tuple[Any, ...] = (), *, or_null: bool = True) -> str:
    """A noun phrase to follow "expected".

    Args:
        or_null: whether to mention that null is allowed, where it is.

    Examples:
        >>> from annotated_types import Gt
        >>> describe(float | None, (Gt(0),)), describe(Literal["keep", "drop"]), describe(bool)
        ('a number greater than 0, or null', 'keep or drop', 'true or false')
    """
    inner, marks, optional = unwrap(annotation, metadata)
    return _noun(inner, marks) + (", or null" if optional and or_null else "")


def either(words: list[str]) -> str:
    """``a, b or c``."""
    return " or ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _noun(inner: Any, marks: tuple[Any, ...]) -> str:
    for mark in marks:
        if isinstance(mark, Expected):
            return mark.text
    if get_origin(inner) is Literal:
        return either([str(value) for value in get_args(inner)])
    if get_origin(inner) in (list, tuple):
        return f"a list of {_count(inner, marks)}{describe(get_args(inner)[0])}"
    if inner is bool:
        return "true or false"
    if inner is int:
        return f"a whole number{_whole_bounds(marks)}"
    if inner is float:
        return f"a number{_bounds(marks)}"
    if inner is str:
        return "text"
    candidates = models(inner)
    if len(candidates) > 1:
        return f"a section with {selector(candidates)}: {' | '.join(names(candidates))}"
    return "a section (key: value)"


def _count(inner: Any, marks: tuple[Any, ...]) -> str:
    if get_origin(inner) is tuple:
        return f"{len(get_args(inner))}, each "
    low = next((mark.min_length for mark in marks if isinstance(mark, MinLen)), 0)
    high = next((mark.max_length for mark in marks if isinstance(mark, MaxLen)), None)
    if high is not None:
        return f"{low} to {high}, each "
    return f"at least {low}, each " if low else "items, each "


def _whole_bounds(marks: tuple[Any, ...]) -> str:
    at = {name: value for name, _, value in _bounds_in(marks)}
    low = at["gt"] + 1 if "gt" in at else at.get("ge")
    high = at["lt"] - 1 if "lt" in at else at.get("le")
    if high is None:
        return f" of at least {low}" if low is not None else ""
    return f" from {low} to {high}" if low is not None else f" of at most {high}"


def _bounds(marks: tuple[Any, ...]) -> str:
    words = [f"{word} {value:g}" for _, word, value in _bounds_in(marks)]
    return f" {' and '.join(words)}" if words else ""


_BOUNDS = {Gt: ("gt", "greater than"), Ge: ("ge", "of at least"), Lt: ("lt", "less than"), Le: ("le", "at most")}


def _bounds_in(marks: tuple[Any, ...]) -> list[tuple[str, str, Any]]:
    """Name, words and value of each bound."""
    return [(*_BOUNDS[type(mark)], getattr(mark, _BOUNDS[type(mark)][0])) for mark in marks if type(mark) in _BOUNDS]
