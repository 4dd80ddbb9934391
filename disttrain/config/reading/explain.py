"""From pydantic's errors to messages for a person: place, key, what was given, what is allowed, and a suggestion."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from pydantic import ValidationError

from disttrain.config.reading.describe import describe, either
from disttrain.config.reading.fields import Located, every_key, fields, locate, models, names, selector
from disttrain.config.reading.problems import Path, Problem, dotted, printable, shown
from disttrain.config.reading.strict_yaml import Document
from disttrain.config.reading.suggest import number_hint, similar, suggest_key
from disttrain.config.sections.base import ALTERNATIVES

_YES_NO = {"on", "off", "yes", "no", "y", "n", "true", "false"}
# Finding suggestions takes about a millisecond each; nobody reads more of them.
_MAX_EXPLAINED = 1000


def explain(error: ValidationError, document: Document, origins: dict[Path, str], name: str) -> list[Problem]:
    """One problem for each of pydantic's errors, but none for what the YAML reader has already complained about, and none
    for a missing key that was only misspelt.

    Args:
        origins: the override, for each path that comes from one.
        name: of the file.
    """
    explainer = _Explainer(document, origins, name)
    found = [explainer.finding(item) for item in islice(error.errors(include_url=False), _MAX_EXPLAINED)]
    meant = {finding.problem.suggestion for finding in found} | {dotted(path) for path in document.unusable}
    return [
        finding.problem
        for finding in found
        if not finding.settled_by & meant
        and not any(finding.path[:end] in document.unusable for end in range(len(finding.path) + 1))
    ]


@dataclass(frozen=True, slots=True)
class _Finding:
    """A problem, its path, and the dotted keys of which any one would settle it if it were there."""

    problem: Problem
    path: Path
    settled_by: frozenset[str] = frozenset()


class _Explainer:
    def __init__(self, document: Document, origins: dict[Path, str], name: str) -> None:
        self._document = document
        self._origins = origins
        self._name = name
        self._known = list(dict.fromkeys(every_key(document.data)))

    def finding(self, item: Any) -> _Finding:
        at = locate(item["loc"], self._document.data)
        match item["type"]:
            case "extra_forbidden":
                return self._unknown_key(at)
            case "missing":
                message = f"is required; expected {describe(at.annotation, at.metadata)}"
                return self._at(at.path, message, settled_by={dotted(at.path)})
            case "union_tag_invalid" | "union_tag_not_found":
                return self._unknown_name(at, item["input"])
            case "exactly_one":
                return self._not_one(at.path[:-1], item)
            case "contradiction":
                return self._at(at.path, item["msg"])
            case "value_error":
                return self._at(at.path, str(item["ctx"]["error"]))
            case _:
                return self._at(at.path, _wrong_value(item, at))

    def _unknown_key(self, at: Located) -> _Finding:
        key, parent = str(at.path[-1]), dotted(at.path[:-1])
        own = list(fields(at.owner)) if at.owner is not None else []
        elsewhere = [m for m in at.siblings if at.owner is not m and key in fields(m)]
        if at.owner is not None and elsewhere:
            message = f"unknown key for {names([at.owner])[0]}; it belongs to {either(names(elsewhere))}"
            return self._at(at.path, message)
        if "." in key and key in self._known:
            *around, last = key.split(".")
            nested = f"{': {'.join(around)}: {{{last}: ...{'}' * len(around)}"
            return self._at(at.path, f"unknown key; write nested sections: {nested}")
        suggestion = suggest_key(key, parent, self._known)
        message = "unknown key" if suggestion or not own else f"unknown key; expected one of {', '.join(own)}"
        finding = self._at(at.path, message)
        return replace(finding, problem=replace(finding.problem, suggestion=suggestion))

    def _unknown_name(self, at: Located, given: Any) -> _Finding:
        field = fields(at.owner)[str(at.path[-1])] if at.owner is not None else None
        assert field is not None
        candidates = models(field.annotation)
        key, allowed = selector(candidates), names(candidates)
        if not isinstance(given, dict):
            hint = f"; write {{{key}: {given}}}" if given in allowed else ""
            return self._at(at.path, f"got {shown(given)}; expected {describe(field.annotation)}{hint}")
        path = (*at.path, key)
        if given.get(key) is None:
            return self._at(path, f"is required; expected {' | '.join(allowed)}")
        close = similar(given[key], allowed) if isinstance(given[key], str) else ""
        hint = f"; did you mean {close}?" if close else ""
        return self._at(path, f"got {shown(given[key])}; expected {' | '.join(allowed)}{hint}")

    def _not_one(self, section: Path, item: Any) -> _Finding:
        keys = [(*section, name) for name in item["ctx"]["names"]]
        extra = [(*section, name) for name in item["ctx"]["extra"]]
        taken_away = [key for key in keys if key in self._origins]
        settled_by = set() if extra else {dotted(key) for key in keys}
        return self._at([*extra, *taken_away, section][0], item["msg"], settled_by=settled_by)

    def _at(self, path: Path, message: str, settled_by: set[str] | None = None) -> _Finding:
        where, line = self._place(path)
        return _Finding(Problem(where, dotted(path), message, line), path, frozenset(settled_by or ()))

    def _place(self, path: Path) -> tuple[str, int]:
        """The override or line of the path, or of the nearest section around it."""
        for end in range(len(path), -1, -1):
            if path[:end] in self._origins:
                return self._origins[path[:end]], 0
            if path[:end] in self._document.lines:
                line = self._document.lines[path[:end]]
                return f"{self._name}:{line}", line
            made_by = [where for origin, where in self._origins.items() if origin[:end] == path[:end]]
            if made_by and end:  # the whole recipe is no override's, where a program gave it as a dict
                return made_by[0], 0
        return self._name, 0


def _wrong_value(item: Any, at: Located) -> str:
    given = item["input"]
    if at.annotation is None:
        return printable(f"got {shown(given)}; {item['msg']}")
    alternative = any(at.path[-1] in group for group in ALTERNATIVES)
    expected = describe(at.annotation, at.metadata, or_null=not alternative)
    hint = ""
    if isinstance(given, str) and item["type"].startswith(("int", "float")):
        hint = number_hint(given)
    elif isinstance(given, str) and item["type"].startswith("bool") and given.lower() in _YES_NO:
        hint = " without quotes" if given in ("true", "false") else ""
    elif isinstance(given, int | float) and item["type"] == "string_type":
        hint = f'; write "{shown(given)}" in quotes'
    return f"got {shown(given)}; expected {expected}{hint}"
