"""YAML without its surprises, read event by event with the line of every value.

A plain scalar is null, ``true`` or ``false``, a decimal integer, a decimal float, or else the string as typed: ``on``,
``010``, ``1:30`` and ``2024-01-01`` stay strings, and ``1e-3`` is a number. Duplicate keys, aliases, anchors, tags, keys
that are not strings and a second document are mistakes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from disttrain.config.problems import Problem, RecipeError

Path = tuple[str | int, ...]
MAX_DEPTH = 32
_WORDS = {"": None, "~": None, "null": None, "Null": None, "NULL": None}
_WORDS |= {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INTEGER = re.compile(r"[+-]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(
    r"[+-]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))([eE][+-]?[0-9]+)?|[+-]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
)


def scalar(text: str) -> Any:
    """The value of a plain (unquoted) scalar.

    >>> [scalar(t) for t in ("1e-3", "on", "010", "12", ".5", "null", "true")]
    [0.001, 'on', '010', 12, 0.5, None, True]
    """
    if text in _WORDS:
        return _WORDS[text]
    # An integer with more digits than any setting could mean is left a string; int() would be slow on it.
    if _INTEGER.fullmatch(text) and len(text) < 40:
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return text


@dataclass
class Document:
    """Parsed data, where each path stands, and what was wrong on the way."""

    data: Any
    lines: dict[Path, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


@dataclass
class _Open:
    """A mapping or list whose end has not been seen."""

    value: dict[str, Any] | list[Any]
    path: Path
    key: str | None = None
    skip: bool = False


def parse(text: str, name: str) -> Document:
    """Parse one document; ``name`` stands for the file in messages.

    Raises:
        RecipeError: the text is not YAML, or is nested deeper than ``MAX_DEPTH``; other mistakes are collected.
    """
    document = Document(None)
    stack: list[_Open] = []
    documents = 0

    def problem(event: Any, path: Path, message: str) -> None:
        line = event.start_mark.line + 1
        document.problems.append(Problem(f"{name}:{line}", dotted(path), message, line))

    def place(event: Any, value: Any) -> Path:
        """Put a value where it belongs; returns its path."""
        if not stack:
            document.data = value
            return ()
        top = stack[-1]
        if isinstance(top.value, list):
            top.value.append(value)
            path = (*top.path, len(top.value) - 1)
        else:
            assert top.key is not None
            path = (*top.path, top.key)
            if not top.skip:
                top.value[top.key] = value
            top.key, top.skip = None, False
        document.lines.setdefault(path, event.start_mark.line + 1)
        return path

    def take_key(event: Any, top: _Open) -> None:
        key = event.value
        path = (*top.path, key)
        line = event.start_mark.line + 1
        if event.style is None and not isinstance(scalar(key), str):
            problem(event, top.path, f"key {key!r} is not a name; put it in quotes if it is meant to be one")
        if key in top.value:  # type: ignore[operator]
            problem(event, path, f"is given twice, first in line {document.lines[path]}")
            top.skip = True
        document.lines.setdefault(path, line)
        top.key = key

    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            top = stack[-1] if stack else None
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    problem(event, (), "a second document begins here; a recipe is one document")
                    break
            if isinstance(event, yaml.NodeEvent) and event.anchor is not None:
                what = "alias *" if isinstance(event, yaml.AliasEvent) else "anchor &"
                problem(
                    event,
                    top.path if top else (),
                    f"{what}{event.anchor}: write the value out; recipes have no references",
                )
            expects_key = top is not None and isinstance(top.value, dict) and top.key is None
            if isinstance(event, yaml.ScalarEvent):
                if event.tag is not None:
                    problem(event, top.path if top else (), f"tag {event.tag}: recipes hold plain values only")
                if expects_key:
                    assert top is not None
                    take_key(event, top)
                else:
                    place(event, scalar(event.value) if event.style is None else event.value)
            elif isinstance(event, yaml.AliasEvent):
                if expects_key:
                    assert top is not None
                    top.key, top.skip = f"*{event.anchor}", True
                else:
                    place(event, None)
            elif isinstance(event, yaml.CollectionStartEvent):
                if expects_key:
                    assert top is not None
                    line = event.start_mark.line + 1
                    raise RecipeError([Problem(f"{name}:{line}", dotted(top.path), "a key must be a name", line)])
                if event.tag is not None:
                    problem(event, top.path if top else (), f"tag {event.tag}: recipes hold plain values only")
                if len(stack) >= MAX_DEPTH:
                    line = event.start_mark.line + 1
                    raise RecipeError([Problem(f"{name}:{line}", "", f"nested deeper than {MAX_DEPTH} levels", line)])
                value: dict[str, Any] | list[Any] = {} if isinstance(event, yaml.MappingStartEvent) else []
                stack.append(_Open(value, place(event, value)))
            elif isinstance(event, yaml.CollectionEndEvent):
                stack.pop()
    except yaml.YAMLError as error:
        raise RecipeError([_syntax(error, name)]) from None
    return document


def dotted(path: Path) -> str:
    """``("schedule", "milestones", 2)`` as ``schedule.milestones[2]``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _syntax(error: yaml.YAMLError, name: str) -> Problem:
    mark = getattr(error, "problem_mark", None)
    message = getattr(error, "problem", None) or str(error).splitlines()[0]
    if mark is None:
        return Problem(name, "", f"is not YAML: {message}")
    hint = " (indent with spaces, not tabs)" if "\\t" in message else ""
    return Problem(f"{name}:{mark.line + 1}:{mark.column + 1}", "", f"is not YAML: {message}{hint}", mark.line + 1)
