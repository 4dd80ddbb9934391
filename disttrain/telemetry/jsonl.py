"""Records as lines of JSON: ``metrics.jsonl``."""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from disttrain.errors import DisttrainError, InputError

logger = logging.getLogger("disttrain")


class JsonlSink:
    """Appends each record as one line of strict JSON, handed to the system before `log` returns.

    A line ends with its ``time``, such as ``2026-11-21T14:05:09.123Z``: UTC, which the clock may set back, but never
    before the time of this sink's line before, so that tools may sort by it.

    JSON has no NaN or infinity. Such a number is written as null, and next to it stands what it was:
    ``"loss": null, "loss_nonfinite": "nan"`` (or ``"inf"``, ``"-inf"``).

    Raises:
        DisttrainError: the file cannot be opened or written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._time = 0.0
        try:
            self._end_last_line()
            self._file = open(path, "ab", buffering=0)  # noqa: SIM115
        except OSError as error:
            raise DisttrainError(f"{path}: cannot be opened for writing: {error.strerror}") from error

    def log(self, record: Mapping[str, object]) -> None:
        self._time = max(self._time, time.time())
        data = to_line({**record, "time": _utc(self._time)}).encode()
        try:
            while data:  # on a full disk a write may stop short before one fails
                data = data[self._file.write(data) :]
        except OSError as error:
            raise DisttrainError(f"{self._path}: cannot be written: {error.strerror}") from error

    def close(self) -> None:
        self._file.close()

    def _end_last_line(self) -> None:
        """A process killed in the middle of a line must not spoil the next one."""
        if self._path.exists() and self._path.stat().st_size > 0:
            with open(self._path, "r+b") as file:
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    file.write(b"\n")


def _utc(seconds: float) -> str:
    """Seconds since 1970 as ISO 8601 in UTC, cut to milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def to_line(record: Mapping[str, object]) -> str:
    """The line for one record, with its line break.

    Raises:
        TypeError: a value is none of None, bool, int, float, str, list, tuple and dict.
    """
    return json.dumps(finite(record), allow_nan=False) + "\n"


class Truncated(NamedTuple):
    """How many lines were kept, were dropped for their step, and were dropped because they are not JSON objects."""

    kept: int
    dropped: int
    damaged: int


def read_records(path: Path) -> list[dict[str, Any]]:
    """The records of a file, in order, without lines that are none, such as one that a kill cut off; none of a missing file.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return [record for line in file if (record := _parse(line)) is not None]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None


def number_of(record: Mapping[str, Any], name: str) -> float | None:
    """A number of a record as it was, NaN and infinities included; None where there is none. A file from elsewhere may hold
    anything."""
    value = record.get(name)
    if value is None and isinstance(record.get(f"{name}_nonfinite"), str):
        value = record[f"{name}_nonfinite"]
    elif isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def truncate_after(path: Path, step: int) -> Truncated:
    """Drop the lines past ``step``, so that a resumed run writes them again; also, with a warning in the log, lines that are
    no records, such as one that a kill cut off.

    Lines without a step are kept. The file is replaced by one rename, or left alone when nothing is to be dropped; a
    missing file counts as empty.

    Raises:
        DisttrainError: the file cannot be read or replaced.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    kept = dropped = damaged = 0
    try:
        if not path.exists():
            return Truncated(0, 0, 0)
        with open(path, "rb") as source, open(temporary, "wb") as target:
            for line in source:
                record = _parse(line)
                if record is None:
                    damaged += 1
                elif type(record.get("step")) is int and record["step"] > step:
                    dropped += 1
                else:
                    kept += 1
                    target.write(line if line.endswith(b"\n") else line + b"\n")
            target.flush()
            os.fsync(target.fileno())
        if dropped or damaged:
            shutil.copymode(path, temporary)
            os.replace(temporary, path)
        else:
            temporary.unlink()
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise DisttrainError(f"{path}: cannot be cut back to step {step}: {error.strerror}") from error
    if damaged:
        what = "1 line is no record" if damaged == 1 else f"{damaged} lines are no records"
        logger.warning("%s: %s and dropped; a kill in the middle of a line leaves one", path, what)
    return Truncated(kept, dropped, damaged)


def _parse(line: bytes) -> dict[str, Any] | None:
    """A record; None for a damaged line."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def finite(value: Any) -> Any:
    """``value`` with every number that is not finite replaced as `JsonlSink` says; inside a list by null alone."""
    if isinstance(value, Mapping):
        result = {}
        for key, item in value.items():
            result[key] = finite(item)
            if isinstance(item, float) and not math.isfinite(item):
                result[f"{key}_nonfinite"] = repr(float(item))
        return result
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
