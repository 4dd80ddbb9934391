"""The chapter on one run."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from disttrain.config import dump_recipe
from disttrain.report import branches as branching
from disttrain.report import happened
from disttrain.report.blocks import Chapter, Code, Section, Table, Words, plain, sentence, table
from disttrain.report.branches import Branches
from disttrain.report.chart import amount
from disttrain.report.curves import sections
from disttrain.report.judge import held_out, result, verdict
from disttrain.report.run import By, Run
from disttrain.telemetry.lines import duration


def chapter(run: Run, branches: Branches | None, by: By, key: str) -> Chapter:
    """All that the run has recorded, and the branches that began from it."""
    drawn = sections([run], by, key)
    branched = () if branches is None else (Section("Branches", branching.parts(branches, f"{key}-branches")),)
    words = _noise_words(run)
    noise = tuple(
        Section(s.title, (*s.parts, Words(words))) if s.title == "Noise scale" and words else s for s in drawn
    )
    return Chapter(run.name, "run", verdict(run, branches), tuple(facts(run)), (*noise, *branched, *_rest(run)))


def facts(run: Run) -> Iterator[tuple[str, str]]:
    """The numbers that one looks for first."""
    figure = result(run)
    if figure is not None:
        name, _, value = (
            figure.rpartition(" ") if not figure.endswith("%") else figure.removesuffix(" %").rpartition(" ")
        )
        yield name, value + (" %" if figure.endswith("%") else "")
    held = held_out(run)
    if held is not None:
        yield f"{held[0]} loss", amount(held[1].finite[-1])
    yield "updates", f"{run.last_step:,}"
    yield "samples", f"{run.samples:,}"
    yield "global batch", f"{run.batch:,}"
    ranks, engine = run.machine("ranks"), run.machine("engine")
    if isinstance(ranks, int):
        yield "ranks", f"{ranks:,}" + (f" ({plain(engine)})" if isinstance(engine, str) and ranks > 1 else "")
    yield "time of training", duration(run.seconds)
    speeds = run.train.get("samples_per_second")
    if speeds is not None and len(speeds.finite):
        yield "samples a second", f"{statistics.median(speeds.finite.tolist()):,.0f}"


def _noise_words(run: Run) -> tuple[str, ...]:
    """What the run last said of each noise scale."""
    said = {
        e["event"]: str(e["message"]) for e in run.events if e["event"].startswith("noise_scale") and "message" in e
    }
    note = run.ending.get("noise_scale_note")
    return tuple(sentence(plain(words)) for words in (*said.values(), *([note] if isinstance(note, str) else [])))


def _rest(run: Run) -> Iterator[Section]:
    yield Section("Events", (table("What happened", ("time (UTC)", "update", "what", "in words"), happened.rows(run)),))
    yield Section("Environment", environment(run))
    yield Section("Recipe", (Code("recipe.yaml, resolved", plain(dump_recipe(run.recipe))),))


def environment(run: Run) -> tuple[Table, ...]:
    """What the latest start ran on, and what it derived from the recipe."""
    if not run.starts:
        return ()
    latest = run.starts[-1]
    topics = [
        (f"{topic}: {key}", value)
        for topic in ("machine", "package", "dataset", "code")
        for key, value in latest.get(topic, {}).items()
    ]
    planned = [(key.replace("_", " "), value) for key, value in latest.get("plan", {}).items() if value is not None]
    made = [
        table(
            f"What it ran on{', at the last of {len(run.starts)} starts' if len(run.starts) > 1 else ''}",
            ("what", "is"),
            topics,
        )
    ]
    return (*made, table("Derived from the recipe", ("what", "is"), planned, folded=True))
