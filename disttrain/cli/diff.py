"""``disttrain diff``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from disttrain.rundir.compare import Comparison, Curve

First = Annotated[Path, typer.Argument(help="A run directory.", metavar="RUN")]
Second = Annotated[Path, typer.Argument(help="Another one.", metavar="RUN")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]


def diff(first: First, second: Second, json: Json = False) -> None:
    """Compare two runs: which recipe keys, plan, packages, code, data and machines differ, and from which update on the losses
    do. The exit code is 0 whether they differ or not."""
    from disttrain.rundir.compare import compare

    found = compare(first, second)
    if json:
        print(_as_json(found))
        return

    from disttrain.cli.console import print_table

    rows = [(d.topic, d.key, str(d.first), str(d.second)) for d in found.differences]
    if rows:
        print_table("what differs", ("what", "key", str(first), str(second)), rows)
    else:
        print("recipe, plan, packages, code, data and machine: all alike")
    if found.curves:
        headings = ("what", "common updates", "from update", str(first), str(second), "largest difference")
        print_table("from which update on", headings, map(_row, found.curves))
    else:
        print("no numbers to compare: one of the runs has written none")


def _row(curve: Curve) -> tuple[str, ...]:
    if curve.common == 0:
        return (curve.name, "0", "never written at the same update", "", "", "")
    if curve.differs_at is None:
        return (curve.name, str(curve.common), f"equal up to {curve.same_until}", "", "", "")
    until = f" (equal up to {curve.same_until})" if curve.same_until is not None else ""
    largest = f"{curve.largest:.2e} at {curve.largest_at}"
    return (curve.name, str(curve.common), f"{curve.differs_at}{until}", repr(curve.first), repr(curve.second), largest)


def _as_json(found: Comparison) -> str:
    from dataclasses import asdict

    from disttrain.telemetry.jsonl import to_line

    record: dict[str, Any] = asdict(found)
    return to_line(record).rstrip()
