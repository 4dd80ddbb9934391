"""``key.path=value`` on the command line: the same rules as in the file, applied before anything is checked."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import getitem
from typing import Any

from disttrain.config.reading.problems import Path, Problem, RecipeError, dotted, shown
from disttrain.config.reading.strict_yaml import Document, parse
from disttrain.config.sections.base import ALTERNATIVES

# In these, any key may be an argument of the user's own class: nothing is replaced.
_OPEN = {"task", "model", "optimizer"}
# Sections whose name or kind decides which other keys there are.
_SELECTORS = {("task", "name"), ("model", "name"), ("optimizer", "name"), ("schedule", "decay", "kind")}


def apply(document: Document, overrides: Sequence[str]) -> dict[Path, str]:
    """Write the overrides, from first to last, into ``document.data``; returns where each one stands, by its path.

    Two conveniences: an override of one of ``epochs``, ``samples``, ``updates`` (or ``global``, ``per_rank``) replaces the
    file's choice, and another ``name`` (or decay ``kind``) starts that section anew, because the other keys belong to the
    old one.
    """
    origins: dict[Path, str] = {}
    for text in overrides:
        where = f"override {shown(text).replace(chr(34), chr(39))}"
        key, equals, value = text.partition("=")
        key = key.strip()
        path = tuple(key.split("."))
        if not equals or not all(path):
            document.problems.append(Problem(where, "", "expected key.path=value"))
            continue
        if not value.strip():
            document.problems.append(Problem(where, key, "there is no value; write null to take a value away"))
            continue
        try:
            parsed = parse(value, where)
            mistakes = parsed.problems
        except RecipeError as error:
            parsed, mistakes = Document(None), error.problems
        document.problems += [Problem(where, _below(key, p.key), p.message) for p in mistakes]
        if not mistakes or parsed.data is not None:
            _Setter(document, origins, where).set(path, parsed.data)
        document.unusable |= {(*path, *below) for below in parsed.unusable}
    return origins


class _Setter:
    """Writes one override."""

    def __init__(self, document: Document, origins: dict[Path, str], where: str) -> None:
        self._document = document
        self._origins = origins
        self._where = where

    def set(self, path: Path, value: Any) -> None:
        section = self._section(path[:-1])
        if section is None:
            return
        key = path[-1]
        if path in _SELECTORS and section.get(str(key)) != value:
            self._start_anew(path[:-1], section)
        for group in ALTERNATIVES:
            if key in group and path[0] not in _OPEN and value is not None:
                for other in group:
                    if (*path[:-1], other) not in self._origins:
                        section.pop(other, None)
        self._forget(path)
        section[str(key)] = value
        self._origins[path] = self._where

    def _section(self, path: Path) -> dict[str, Any] | None:
        """The mapping at ``path``, made where there is none."""
        found: dict[str, Any] = self._document.data
        for end, part in enumerate(path, 1):
            inner = found.setdefault(str(part), {})
            if inner is None:
                inner = found[str(part)] = {}
            if not isinstance(inner, dict):
                message = f"{dotted(path[:end])} is {shown(inner)}, not a section: give its whole value"
                self._document.problems.append(Problem(self._where, "", message))
                return None
            found = inner
        return found

    def _start_anew(self, path: Path, section: dict[str, Any]) -> None:
        inside = [origin for origin in self._origins if origin[: len(path)] == path and len(origin) > len(path)]
        kept = {origin: reduce(getitem, origin, self._document.data) for origin in inside}
        section.clear()
        for origin, value in kept.items():
            parent = self._section(origin[:-1])
            assert parent is not None
            parent[str(origin[-1])] = value
        # What the new section lacks is missing from this override, not from the file.
        self._document.lines = {at: line for at, line in self._document.lines.items() if at[: len(path)] != path}
        self._origins[path] = self._where

    def _forget(self, path: Path) -> None:
        """What stood at ``path`` and below is replaced."""
        for table in (self._document.lines, self._origins):
            for old in [old for old in table if old[: len(path)] == path]:
                del table[old]
        self._document.unusable -= {old for old in self._document.unusable if old[: len(path)] == path}


def _below(key: str, inner: str) -> str:
    return f"{key}{'' if inner.startswith('[') or not inner else '.'}{inner}"
