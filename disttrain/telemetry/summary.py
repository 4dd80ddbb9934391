"""The end of a run in a few lines."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, TextIO

from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from disttrain.telemetry.lines import value_of
from disttrain.telemetry.outlet import Outlet

_LABELS = {
    "accuracy": "test accuracy",
    "loss": "test loss",
    "seconds": "time",
    "samples_per_second": "samples/s",
    "samples_per_second_per_rank": "samples/s per rank",
    "run_dir": "run directory",
}
_MOST_RANKS = 8
"""Longest list that is written out."""


def summary_rows(summary: Mapping[str, object]) -> list[tuple[str, str]]:
    """Label and value of each entry, in the order given; values that are None are left out."""
    rows = [(_label(name, summary), _text(name, value)) for name, value in summary.items() if value is not None]
    return [(label, text.removeprefix(f"{label} ")) for label, text in rows]


def _label(name: str, summary: Mapping[str, object]) -> str:
    """A metric that stands there for another split too is the test set's."""
    if any(f"{split}_{name}" in summary for split in ("train", "validation")):
        return f"test {name}"
    return _LABELS.get(name, name.replace("_", " "))


def summary_lines(summary: Mapping[str, object]) -> list[str]:
    """Plain lines: a title, then label and value in two columns."""
    rows = summary_rows(summary)
    width = max((len(label) for label, _ in rows), default=0)
    return ["summary", *(f"  {label:<{width}}  {text}" for label, text in rows)]


def summary_panel(summary: Mapping[str, object]) -> Panel:
    """The same for a terminal."""
    table = Table.grid(padding=(0, 2))
    for label, text in summary_rows(summary):
        table.add_row(Text(label, style="bold"), Text(text, overflow="fold"))
    return Panel(table, title="summary", expand=False)


def print_summary(summary: Mapping[str, object], stream: TextIO | None = None, *, framed: bool = True) -> None:
    """Print the summary on ``stream``, by default standard output: framed on a terminal if ``framed``, else plain."""
    outlet = Outlet(stream if stream is not None else sys.stdout)
    console = outlet.console()
    if framed and console.is_terminal and not console.is_dumb_terminal:
        console.print(summary_panel(summary))
    else:
        outlet.write("".join(f"{line}\n" for line in summary_lines(summary)))
    outlet.flush()


def _text(name: str, value: Any) -> str:
    if isinstance(value, list | tuple):
        if len(value) > _MOST_RANKS:
            return f"{_text(name, min(value))} to {_text(name, max(value))} ({len(value)} values)"
        return ", ".join(_text(name, item) for item in value)
    return value_of(name, value)
