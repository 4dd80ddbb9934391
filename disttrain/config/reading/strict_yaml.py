"""YAML without its surprises, read event by event with the line of every value.

A plain scalar is null, ``true`` or ``false``, a decimal integer, a decimal float, or else the string as typed: ``on``,
``010``, ``1:30`` and ``2024-01-01`` stay strings, and ``1e-3`` is a number. Duplicate keys, aliases, anchors, merge keys,
tags, keys that are not strings, numbers that do not fit 64 bits, NaN, infinity and a second document are mistakes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

import yaml
from yaml.reader import ReaderError

from disttrain.config.reading.problems import MAX_SHOWN, Path, Problem, RecipeError, dotted, printable, shown

MAX_DEPTH = 32
MAX_VALUES = 50_000
_WORDS: dict[str, bool | None] = {"": None, "~": None, "null": None, "Null": None, "NULL": None}
_WORDS |= {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INTEGER = re.compile(r"[+-]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[+-]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))([eE][+-]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[+-]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_DIGITS_OF_64_BITS = 19


def scalar(text: str) -> Any:
    """The value of a plain (unquoted) scalar; infinity for a number that does not fit into 64 bits.

    Examples:
        >>> [scalar(t) for t in ("1e-3", "on", "010", "12", ".5", "null", "true")]
        [0.001, 'on', '010', 12, 0.5, None, True]
    """
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        # int() is slow, and by default refuses, where there are thousands of digits.
        value = int(text) if len(text.lstrip("+-")) <= _DIGITS_OF_64_BITS else 2**63
        return value if -(2**63) <= value < 2**63 else math.inf
    if _FLOAT.fullmatch(text):
        number = float(text)
        vanished = number == 0.0 and re.match(r"[+-]?[0.]*[1-9]", text)
        return math.inf if vanished else number
    if _NOT_FINITE.fullmatch(text):
        return float(text.replace(".", ""))
    return text


@dataclass
class Document:
    """Parsed data, where each path stands, and what was wrong on the way.

    Attributes:
        data: mappings, lists and scalars.
        lines: line of each path, counted from 1.
        problems: the mistakes of the YAML itself.
        unusable: paths whose value is not what the file says, because that is one of ``problems``.
    """

    data: Any
    lines: dict[Path, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    unusable: set[Path] = field(default_factory=set)


def parse(text: str, name: str) -> Document:
    """Parse one document; ``name`` stands for the file in messages.

    Raises:
        RecipeError: the text is not YAML, is nested deeper than ``MAX_DEPTH``, or holds more than ``MAX_VALUES`` keys and
            values; other mistakes are collected.
    """
    reader = _Reader(name)
    try:
        reader.read(yaml.parse(text, Loader=yaml.SafeLoader))
    except ReaderError as error:
        raise RecipeError([_bad_character(error, text, name)]) from None
    except yaml.YAMLError as error:
        raise RecipeError([_syntax(error, name)]) from None
    return reader.document


class _Reader:
    """Builds the data from parser events."""

    def __init__(self, name: str) -> None:
        self.document = Document(None)
        self._name = name
        self._values = 0

    def read(self, events: Iterator[Any]) -> None:
        """The first document of the stream."""
        documents = 0
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    self._problem(event, (), "a second document begins here; a recipe is one document")
                    return
            elif isinstance(event, yaml.NodeEvent):
                self.document.data = self._value(event, events, (), 0)

    def _value(self, event: Any, events: Iterator[Any], path: Path, depth: int) -> Any:
        """The value that begins with ``event`` and stands at ``path``, inside of ``depth`` mappings and lists."""
        self._check(event, path, path[:-1])
        self.document.lines.setdefault(path, _line(event))
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event, path)
        if isinstance(event, yaml.AliasEvent):
            self.document.unusable.add(path)
            return None
        if depth >= MAX_DEPTH:
            self._stop(event, path[:-1], f"nested deeper than {MAX_DEPTH} levels")
        if isinstance(event, yaml.SequenceStartEvent):
            found: list[Any] = []
            while not isinstance(item := next(events), yaml.CollectionEndEvent):
                found.append(self._value(item, events, (*path, len(found)), depth + 1))
            return found
        keys: dict[str, Any] = {}
        while not isinstance(item := next(events), yaml.CollectionEndEvent):
            self._check(item, path, path)
            key = self._key(item, path, keys)
            value = self._value(next(events), events, (*path, key), depth + 1)
            keys.setdefault(key, value)
        return keys

    def _check(self, event: Any, path: Path, around: Path) -> None:
        """What no key and no value may be."""
        self._values += 1
        if self._values > MAX_VALUES:
            self._stop(event, around, f"more than {MAX_VALUES:,} keys and values")
        if event.anchor is not None:
            what = "alias *" if isinstance(event, yaml.AliasEvent) else "anchor &"
            self._problem(event, path, f"{what}{event.anchor}: write the value out; recipes have no references")
        if getattr(event, "tag", None) is not None:
            self._problem(event, path, f"tag {shown(event.tag)}: recipes hold plain values only", unusable=True)

    def _scalar(self, event: Any, path: Path) -> Any:
        value = scalar(event.value) if event.style is None else event.value
        if isinstance(value, float) and not math.isfinite(value):
            allowed = (
                "expected a finite number" if _NOT_FINITE.fullmatch(event.value) else "it does not fit into 64 bits"
            )
            self._problem(event, path, f"got {_shortened(event.value)}; {allowed}", unusable=True)
        return value

    def _key(self, event: Any, section: Path, before: Mapping[str, Any]) -> str:
        if not isinstance(event, yaml.ScalarEvent):
            self._stop(event, section, "a key must be a name")
        key: str = event.value
        path = (*section, key)
        if event.style is None and key == "<<":
            self._problem(event, path, "merge key: write the values out; recipes have no references", unusable=True)
        elif event.style is None and not isinstance(scalar(key), str):
            message = f"key {_shortened(key)} is not a name; put it in quotes if it is meant to be one"
            self._problem(event, path, message, unusable=True)
        if key in before:
            self._problem(event, path, f"is given twice, first in line {self.document.lines[path]}")
        self.document.lines.setdefault(path, _line(event))
        return key

    def _problem(self, event: Any, path: Path, message: str, *, unusable: bool = False) -> None:
        line = _line(event)
        self.document.problems.append(Problem(f"{self._name}:{line}", dotted(path), message, line))
        if unusable:
            self.document.unusable.add(path)

    def _stop(self, event: Any, around: Path, message: str) -> NoReturn:
        self._problem(event, around[:3], message)
        # The reason must be among what is shown, however much was wrong before.
        raise RecipeError(self.document.problems[-MAX_SHOWN:])


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1


def _shortened(text: str) -> str:
    """An unquoted scalar as typed, cut where it is long."""
    return shown(text)[1:-1] if len(text) < 50 else f"{shown(text[:46])[1:-1]}..."


def _bad_character(error: ReaderError, text: str, name: str) -> Problem:
    before = text[: error.position]
    line, column = before.count("\n") + 1, error.position - before.rfind("\n")
    code = error.character if isinstance(error.character, int) else ord(error.character)
    return Problem(f"{name}:{line}:{column}", "", f"is not YAML: character U+{code:04X} is not allowed", line)


def _syntax(error: yaml.YAMLError, name: str) -> Problem:
    mark = getattr(error, "problem_mark", None)
    message = printable(getattr(error, "problem", None) or str(error).splitlines()[0])
    if mark is None:
        return Problem(name, "", f"is not YAML: {message}")
    hint = " (indent with spaces, not tabs)" if "\\t" in message else ""
    return Problem(f"{name}:{mark.line + 1}:{mark.column + 1}", "", f"is not YAML: {message}{hint}", mark.line + 1)
