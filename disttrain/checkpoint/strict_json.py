"""JSON written one way and read strictly: no duplicate keys, no ``NaN``, no number that overflows."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from disttrain.errors import CheckpointError

MAX_JSON = 64 * 2**20
"""Largest JSON file in bytes."""


def dump_json(value: Any, indent: int | None = None) -> bytes:
    """The bytes of ``value``: sorted keys and ASCII only, so that equal values give equal bytes.

    Raises:
        CheckpointError: ``value`` holds what JSON cannot, such as an infinite float or an integer of
            thousands of digits.
    """
    separators = (",", ":") if indent is None else (",", ": ")
    try:
        text = json.dumps(value, sort_keys=True, allow_nan=False, indent=indent, separators=separators)
    except (ValueError, TypeError, RecursionError) as error:
        raise CheckpointError(f"the state of the run cannot be written as JSON: {error}") from error
    if len(text) >= MAX_JSON:
        raise CheckpointError(f"the state of the run takes {len(text)} bytes as JSON; the limit is {MAX_JSON}")
    return text.encode("ascii") + b"\n"


def parse_json(data: bytes, path: Path) -> Any:
    """The value in ``data``, which was read from ``path``.

    Raises:
        CheckpointError: not strict JSON in UTF-8; the message names ``path`` and the place.
    """
    try:
        return json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_unique_keys,
            parse_float=_finite,
            parse_constant=_no_constant,
        )
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not valid JSON: {error}") from error


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"the key {key[:100]!r} stands twice in one object")
            seen.add(key)
    return result


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:40]} is too large")
    return value


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is not a JSON number")
