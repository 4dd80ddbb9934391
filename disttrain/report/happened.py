"""What happened in a run beside its numbers: starts, resumes, changes, warnings, and how it ended."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from disttrain.errors import InputError
from disttrain.report.run import Run
from disttrain.telemetry.lines import value_of

MOST = 100
"""Rows; of more, the last ones."""
_LINE = re.compile(r"(\S+) rank (\d+) (WARNING|ERROR|CRITICAL) (.*)")
_UNSAID = ("event", "step", "time", "message", "run_dir", "path", "best_checkpoint")
"""What stands elsewhere, and where a machine keeps its files."""


def rows(run: Run) -> list[tuple[str, str, str, str]]:
    """Time (UTC), update, what, and more of it in words; in order of time."""
    found = [*_events(run), *_warnings(run.path)]
    found.sort(key=lambda row: row[0])
    if len(found) > MOST:
        found = [("", "", "earlier", f"{len(found) - MOST + 1} more"), *found[-MOST + 1 :]]
    return found


def _events(run: Run) -> Iterator[tuple[str, str, str, str]]:
    for event in run.events:
        name = event["event"]
        later = (
            name.startswith("noise_scale") and event.get("step") != run.last_step
        )  # sentences that the last one follows
        fine = name == "numerics" and not (event.get("vanishing") or event.get("exploding"))
        if name == "samples" or later or fine:
            continue
        yield _time(str(event.get("time", ""))), str(event.get("step", "")), name.replace("_", " "), _words(event)


def _words(event: Mapping[str, Any]) -> str:
    if event["event"] == "numerics":
        wrong = [
            f"{what} in {', '.join(map(str, event[what]))}" for what in ("vanishing", "exploding") if event.get(what)
        ]
        return "; ".join(wrong)
    said = [str(event["message"])] if "message" in event else []
    numbers = [
        f"{key.replace('_', ' ')} {value_of(key, value)}"
        for key, value in event.items()
        if key not in _UNSAID and not key.startswith("noise_scale") and isinstance(value, int | float | str)
    ]
    return "; ".join([*said, ", ".join(numbers)] if numbers else said)


def _warnings(run_dir: Path) -> Iterator[tuple[str, str, str, str]]:
    """Each warning or error of the ranks' logs once, with the ranks that had it."""
    found: dict[tuple[str, str], tuple[str, list[str]]] = {}
    for path in sorted((run_dir / "log").glob("rank-*.log")):
        try:
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror}") from None
        for match in filter(None, map(_LINE.fullmatch, lines)):
            time, rank, level, message = match.groups()
            _, ranks = found.setdefault((level, message), (time, []))
            if rank not in ranks:
                ranks.append(rank)
    for (level, message), (time, ranks) in found.items():
        who = f"rank {', '.join(ranks)}: " if len(ranks) < 9 else f"{len(ranks)} ranks: "
        yield _time(time), "", level.lower(), who + message


def _time(text: str) -> str:
    """``2026-11-21 14:05:09`` of a time in ISO 8601."""
    return text[:19].replace("T", " ")
