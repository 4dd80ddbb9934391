"""``key.path=value`` on the command line: the same rules as in the file, applied before anything is checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from disttrain.config.problems import Problem, RecipeError
from disttrain.config.strict_yaml import Document, Path, parse

# Setting one of a group on the command line replaces what the file chose among them.
_ALTERNATIVES = ({"epochs", "samples", "updates"}, {"global", "per_rank"})
_SELECTORS = {"name", "kind"}
_SECTIONS = {"task", "model", "optimizer", "decay"}


def apply(document: Document, overrides: Sequence[str]) -> dict[Path, str]:
    """Write the overrides into ``document.data``; returns where each one stands, by its path.

    Two conveniences: an override of one of ``epochs``, ``samples``, ``updates`` (or ``global``, ``per_rank``) replaces the
    file's choice, and another ``name`` (or decay ``kind``) starts that section anew, because the other keys belong to the
    old one.
    """
    origins: dict[Path, str] = {}
    for text in overrides:
        where = f"override {text!r}"
        dotted, _, value = text.partition("=")
        path = tuple(dotted.strip().split("."))
        if not all(path):
            document.problems.append(Problem(where, "", "expected key.path=value"))
            continue
        try:
            parsed = parse(value, where)
        except RecipeError as error:
            document.problems += [Problem(where, dotted, p.message) for p in error.problems]
            continue
        document.problems += [Problem(where, dotted, p.message) for p in parsed.problems]
        if not _set(document.data, path, parsed.data, origins):
            document.problems.append(Problem(where, dotted, "a part of this path is not a section"))
        origins[path] = where
    return origins


def _set(data: Any, path: Path, value: Any, origins: dict[Path, str]) -> bool:
    for i, part in enumerate(path[:-1]):
        if not isinstance(data, dict):
            return False
        if data.get(part) is None:
            data[part] = {}
        data = data[part]
        selects = i == len(path) - 2 and path[-1] in _SELECTORS and part in _SECTIONS
        if selects and isinstance(data, dict) and data.get(path[-1]) != value:
            kept = {k: v for k, v in data.items() if (*path[:-1], k) in origins}
            data.clear()
            data.update(kept)
    if not isinstance(data, dict):
        return False
    for group in _ALTERNATIVES:
        if path[-1] in group and value is not None:
            for other in group - {path[-1]}:
                if (*path[:-1], other) not in origins:
                    data.pop(other, None)
    data[path[-1]] = value
    return True
