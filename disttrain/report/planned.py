"""A plan kept beside a run or a study: ``plan.json``, what ``disttrain plan --json`` prints."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from disttrain.errors import InputError
from disttrain.report.blocks import Part, Section, Words, plain, sentence, table
from disttrain.report.chart import amount
from disttrain.rundir.written import read_json

PLAN, VERSION = "plan.json", 1
_HEAD = ("ranks", "batch", "rate", "updates", "samples", "samples a second", "seconds", "GPU-hours", "")


def section(directory: Path) -> tuple[Section, ...]:
    """What the plan advises, why, and its front of time against cost; none where there is no such file.

    Raises:
        InputError: it cannot be read, or is in the form of another version.
    """
    path = directory / PLAN
    if not path.exists():
        return ()
    data = read_json(path)
    version = data.get("version") if isinstance(data, dict) else None
    if version != VERSION:
        raise InputError(f"{path} is of version {version}, and this disttrain reads version {VERSION}: plan again")
    try:
        parts: list[Part] = [Words(tuple(sentence(plain(words)) for words in data["words"]))]
        if data["front"]:
            rows = [_row(option, option == data["advice"]) for option in data["front"]]
            parts.append(table("The cheapest for each time, with intervals of 95 %", _HEAD, rows))
        return (Section("Plan", tuple(parts)),)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{path} is not in the form that this disttrain writes ({type(error).__name__}: {error}): plan again"
        ) from None


def _row(option: Mapping[str, Any], advised: bool) -> tuple[str, ...]:
    forecast = " (forecast)" if option["origin"] == "forecast" else ""
    return (
        f"{option['ranks']:,}",
        f"{option['batch']:,}",
        f"{option['rate']:.3g}",
        _spread(option["updates"]),
        _spread(option["samples"]),
        _spread(option["samples_per_second"]) + forecast,
        _spread(option["seconds"]),
        _spread(option["gpu_hours"]),
        "advised" if advised else "",
    )


def _spread(ends: Mapping[str, float | None]) -> str:
    """``1,900 (1,500 to 2,500)``."""
    value, low, high = (None if ends[name] is None else float(f"{ends[name]:.3g}") for name in ("value", "low", "high"))
    if value is None:
        return "not known"
    if low is None or high is None:
        return amount(value)
    return amount(value) if low == high else f"{amount(value)} ({amount(low)} to {amount(high)})"
