"""What branches were asked, kept beside them, so that only branches like them join them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from disttrain.config import Recipe
from disttrain.config.reading.dump import flatten
from disttrain.config.reading.problems import printable
from disttrain.errors import InputError
from disttrain.rundir.rundir import temporary_of
from disttrain.rundir.written import read_json

if TYPE_CHECKING:
    from disttrain.study.branch import Question

SETTINGS = "branches.json"


def identity(recipe: Recipe, question: Question, law: str) -> dict[str, Any]:
    """What branches that lie in a directory have in common, as the options say it."""
    return {
        "recipe": flatten(recipe),
        "factors": list(question.factors),
        "length": question.length,
        "law": law,
        "ranks": question.ranks,
        "engine": "local" if question.ranks == 1 else question.engine,
    }


def check_out(out: Path, asked: Mapping[str, Any]) -> None:
    """Refuse a directory that holds anything but branches like these.

    Raises:
        InputError: naming each difference.
    """
    if not out.exists() or not any(path.name not in (".lock", temporary_of(SETTINGS)) for path in out.iterdir()):
        return  # also where it was killed before it had written a word
    try:
        there = read_json(out / SETTINGS)
    except InputError:
        there = None
    if not isinstance(there, dict) or there.keys() != asked.keys():
        raise InputError(f"{out} holds something else than branches of a run: choose another --out")
    if there != asked:
        lines = "".join(f"\n  {printable(line)}" for line in _differences(there, asked))
        raise InputError(f"{out} holds other branches (there -> asked for):{lines}\nundo that, or choose another --out")


def _differences(there: Mapping[str, Any], asked: Mapping[str, Any]) -> Iterator[str]:
    before, after = (flat if isinstance(flat := each["recipe"], dict) else {} for each in (there, asked))
    for key in dict.fromkeys([*before, *after]):
        if (key in before, before.get(key)) != (key in after, after.get(key)):
            said = [
                json.dumps(each[key], ensure_ascii=False) if key in each else "(absent)" for each in (before, after)
            ]
            yield f"recipe: {key}: {' -> '.join(said)}"
    for name in (name for name in asked if name != "recipe"):
        if there[name] != asked[name]:
            option = "batches" if name == "factors" else name
            yield f"--{option}: {_given(there[name])} -> {_given(asked[name])}"


def _given(value: Any) -> str:
    """As on the command line."""
    if isinstance(value, list):
        return ",".join(f"{factor}x" for factor in value)
    return "(default)" if value is None else str(value)
