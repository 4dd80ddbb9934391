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
_WORDS: dict[str, bool | None] = {"": None, "~": None, "null": None, "Null": None, "NULL": None}
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


def parse(text: str, name: str) -> Document:
    """Parse one document; ``name`` stands for the file in messages.

    Raises:
        RecipeError: the text is not YAML, or is nested deeper than ``MAX_DEPTH``; other mistakes are collected.
    """
    reader = _Reader(name)
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            if not reader.take(event):
                break
    except yaml.YAMLError as error:
        raise RecipeError([_syntax(error, name)]) from None
    return reader.document


@dataclass
class _Open:
    """A mapping or list whose end has not been seen, and in a mapping the key that waits for its value."""

    value: dict[str, Any] | list[Any]
    path: Path
    key: str | None = None
    skip: bool = False

    @property
    def wants_key(self) -> bool:
        return isinstance(self.value, dict) and self.key is None


class _Reader:
    """Builds the data from parser events, without recursion."""

    def __init__(self, name: str) -> None:
        self.document = Document(None)
        self._name = name
        self._open: list[_Open] = []
        self._documents = 0

    def take(self, event: Any) -> bool:
        """One event; False when nothing more is wanted."""
        if isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                self._problem(event, "a second document begins here; a recipe is one document")
                return False
        elif isinstance(event, yaml.CollectionEndEvent):
            self._open.pop()
        elif isinstance(event, yaml.NodeEvent):
            self._node(event)
        return True

    def _node(self, event: Any) -> None:
        if event.anchor is not None:
            what = "alias *" if isinstance(event, yaml.AliasEvent) else "anchor &"
            self._problem(event, f"{what}{event.anchor}: write the value out; recipes have no references")
        if getattr(event, "tag", None) is not None:
            self._problem(event, f"tag {event.tag}: recipes hold plain values only")
        if self._open and self._open[-1].wants_key:
            self._key(event, self._open[-1])
        elif isinstance(event, yaml.ScalarEvent):
            self._place(event, scalar(event.value) if event.style is None else event.value)
        elif isinstance(event, yaml.AliasEvent):
            self._place(event, None)
        else:
            if len(self._open) >= MAX_DEPTH:
                raise RecipeError([self._at(event, (), f"nested deeper than {MAX_DEPTH} levels")])
            value: dict[str, Any] | list[Any] = {} if isinstance(event, yaml.MappingStartEvent) else []
            self._open.append(_Open(value, self._place(event, value)))

    def _key(self, event: Any, top: _Open) -> None:
        if not isinstance(event, yaml.ScalarEvent):
            raise RecipeError([*self.document.problems, self._at(event, top.path, "a key must be a name")])
        key = event.value
        if event.style is None and not isinstance(scalar(key), str):
            self._problem(event, f"key {key!r} is not a name; put it in quotes if it is meant to be one")
        path = (*top.path, key)
        top.key, top.skip = key, key in top.value
        if top.skip:
            message = f"is given twice, first in line {self.document.lines[path]}"
            self.document.problems.append(self._at(event, path, message))
        self.document.lines.setdefault(path, _line(event))

    def _place(self, event: Any, value: Any) -> Path:
        """Put a value where it belongs; returns its path."""
        if not self._open:
            self.document.data = value
            return ()
        top = self._open[-1]
        if isinstance(top.value, list):
            top.value.append(value)
            path: Path = (*top.path, len(top.value) - 1)
        else:
            assert top.key is not None
            path = (*top.path, top.key)
            if not top.skip:
                top.value[top.key] = value
            top.key, top.skip = None, False
        self.document.lines.setdefault(path, _line(event))
        return path

    def _problem(self, event: Any, message: str) -> None:
        self.document.problems.append(self._at(event, self._open[-1].path if self._open else (), message))

    def _at(self, event: Any, path: Path, message: str) -> Problem:
        return Problem(f"{self._name}:{_line(event)}", dotted(path), message, _line(event))


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1


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
