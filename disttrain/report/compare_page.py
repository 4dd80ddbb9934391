"""The chapter on several runs: what they were told, where they part, and their curves in the same axes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from disttrain.errors import InputError
from disttrain.report.blocks import Chapter, Section, Table, Verdict, plain, table
from disttrain.report.chart import DASHES, amount
from disttrain.report.curves import sections
from disttrain.report.judge import result
from disttrain.report.run import By, Run
from disttrain.report.run_page import facts
from disttrain.report.svg import COLORS
from disttrain.rundir.compare import ABSENT, Comparison, compare

MOST = len(COLORS) * len(DASHES)


def chapter(runs: Sequence[Run], by: By, key: str) -> Chapter:
    """``runs`` compared, each with the first.

    Raises:
        InputError: there are more than can be told apart.
    """
    if len(runs) > MOST:
        raise InputError(f"{len(runs)} runs: at most {MOST} can be told apart in one picture")
    found = [compare(runs[0].path, run.path) for run in runs[1:]]
    topics = dict.fromkeys(d.topic for each in found for d in each.differences)
    tables = [_differing(runs, found, topic) for topic in sorted(topics, key=lambda topic: topic != "recipe")]
    said = [_said(runs[0], run, each) for run, each in zip(runs[1:], found, strict=True)]
    unknown = ("how much of a difference is luck: each of these is one seed, unless seeds are what differs",)
    return Chapter(
        f"{len(runs)} runs compared",
        "comparison",
        Verdict("compared", tuple(said), unknown),
        (),
        (
            Section("What differs", (_results(runs), *tables, _parting(runs, found))),
            *sections(runs, by, key),
        ),
    )


def _said(first: Run, run: Run, found: Comparison) -> str:
    """What makes ``run`` another one than ``first``, and since when one sees it."""
    recipe = [d for d in found.differences if d.topic == "recipe"]
    keys = ", ".join(f"{d.key} ({_value(d.first)} against {_value(d.second)})" for d in recipe[:3])
    more = f" and {len(recipe) - 3} other keys" if len(recipe) > 3 else ""
    elsewhere = dict.fromkeys(d.topic for d in found.differences if d.topic not in ("recipe", "plan"))
    differs = (
        f"differ in {keys}{more}"
        if recipe
        else "have the same recipe" + (f" and differ in {', '.join(elsewhere)}" if elsewhere else "")
    )
    ends = [figure for each in (first, run) if (figure := result(each)) is not None]
    at_end = f"; at their ends {ends[0]} against {ends[1]}" if len(ends) == 2 else ""
    return f"the runs {plain(first.name)} and {plain(run.name)} {differs}; {_since(found)}{at_end}"


def _since(found: Comparison) -> str:
    loss = next((curve for curve in found.curves if curve.name == "loss"), None)
    if loss is None or not loss.common:
        return "they wrote no training loss at the same update, so where they part is not known"
    if loss.differs_at is None:
        return f"their training losses are equal at all {loss.common:,} updates that both wrote down"
    before = f", equal up to update {loss.same_until:,}" if loss.same_until is not None else ""
    first = "" if before else ", the first that both wrote down"
    return f"their training losses part at update {loss.differs_at:,}{before}{first}"


def _results(runs: Sequence[Run]) -> Table:
    """The figures of each run, a run a column."""
    figures = [dict(facts(run)) | {"how it ended": run.state} for run in runs]
    rows = [
        (name, *(each.get(name, "") for each in figures)) for name in dict.fromkeys(n for each in figures for n in each)
    ]
    return table("What they came to", ("what", *(run.name for run in runs)), rows)


def _differing(runs: Sequence[Run], found: Sequence[Comparison], topic: str) -> Table:
    """The keys of a topic that any run has otherwise than the first."""
    mine = [{d.key: (d.first, d.second) for d in each.differences if d.topic == topic} for each in found]
    rows = []
    for key in dict.fromkeys(key for each in mine for key in each):
        first = next(each[key][0] for each in mine if key in each)
        rows.append((key, _value(first), *(_value(each[key][1] if key in each else first) for each in mine)))
    titles = {"recipe": "Recipe keys that differ", "plan": "What follows from the recipe and differs"}
    title = titles.get(topic, f"What differs of the {topic}")
    return table(title, ("key", *(run.name for run in runs)), rows, folded=topic != "recipe")


def _parting(runs: Sequence[Run], found: Sequence[Comparison]) -> Table:
    """From which update on a number is another one, to the last bit."""
    return table(
        f"From which update on they differ from {plain(runs[0].name)}",
        ("run", "what", "from update", "equal up to", "largest difference"),
        [row for run, each in zip(runs[1:], found, strict=True) for row in _curves(run, each)],
    )


def _curves(run: Run, found: Comparison) -> Iterator[tuple[str, ...]]:
    for curve in found.curves:
        if not curve.common:
            yield run.name, curve.name, "never written at the same update", "", ""
        elif curve.differs_at is None:
            yield run.name, curve.name, "none", f"{curve.same_until:,}", ""
        else:
            equal = "" if curve.same_until is None else f"{curve.same_until:,}"
            largest = f"{amount(100 * curve.largest)} % at {curve.largest_at:,}"
            yield run.name, curve.name, f"{curve.differs_at:,}", equal, largest


def _value(value: Any) -> str:
    return plain(value if value == ABSENT or not isinstance(value, float) else amount(value))
