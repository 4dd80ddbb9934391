"""The chapter on a study: the cost of each batch with the fitted curve, the front, and what it came to."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from disttrain.report.blocks import Chapter, Part, Picture, Section, Verdict, Words, plain, sentence, table
from disttrain.report.svg import drawn, element, styled
from disttrain.study.landscape import picture
from disttrain.study.plots import parts
from disttrain.study.report import headings, rows
from disttrain.study.shown import Shown, read_shown
from disttrain.study.words import critical_batch, fit_points, spoken

_TITLES = {
    "cost": ("Samples to the target", "Updates to the target"),
    "front": ("What is paid for fewer updates",),
    "generalisation": ("Accuracy after the same samples", "Generalisation gap"),
    "curves": ("All runs over samples", "All runs over updates"),
    "sharpness": ("Sharpness of the minima",),
}
_SECTIONS = {
    "cost": "What a batch costs",
    "front": "What a batch costs",
    "curves": "Runs",
    "generalisation": "Generalisation",
    "sharpness": "Minima",
}


@dataclass(frozen=True, slots=True)
class Study:
    """A study's directory, read."""

    name: str
    shown: Shown
    words: tuple[str, ...]


def read_study(path: Path) -> Study:
    """Read ``study.json``.

    Raises:
        InputError: it cannot be read, or is in the form of another version.
    """
    found, words = read_shown(path)
    return Study(path.resolve().name, found, tuple(words))


def chapter(study: Study, key: str) -> Chapter:
    """All that the study has found."""
    made: dict[str, list[Part]] = {title: [] for title in dict.fromkeys(_SECTIONS.values())}
    for name, draws in parts(study.shown).items():
        for i, (draw, title) in enumerate(zip(draws, _TITLES[name], strict=True)):
            label = f"{key}-{name}{i}"
            made[_SECTIONS[name]].append(Picture(title, drawn(label, draw, height=4.0), _described(study, title)))
    for name, each in study.shown.minima.slices:
        with styled(f"{key}-{name}"):
            svg = element(picture(each), f"{key}-{name}")
        made["Minima"].append(
            Picture("Loss between two minima" if name == "line" else "Loss around a minimum", svg, plain(each.about))
        )
    made["What a batch costs"].append(Words(tuple(sentence(plain(words)) for words in study.words)))
    charts = [Section(title, tuple(found)) for title, found in made.items()]
    results = Section("Results", (table("Batch by batch", headings(study.shown), rows(study.shown)),))
    verdict = Verdict(study.name, tuple(_said(study)), tuple(_unknown(study)))
    return Chapter(study.name, "study", verdict, tuple(_facts(study)), (charts[0], results, *charts[1:]))


def _said(study: Study) -> Iterator[str]:
    found, points = study.shown, fit_points(study.shown.points)
    if found.fit is None or len(points) < 2:
        yield study.words[0] if study.words else "no two batches have reached the target"
        return
    if found.fit.fits:
        yield critical_batch(found.fit.critical_batch)
    else:
        yield "no hyperbola fits these batches, so there is no critical batch in its sense"
    cheapest = min(points, key=lambda p: statistics.fmean(p.samples))
    fewest = min(points, key=lambda p: statistics.fmean(p.samples) / p.batch)
    yield f"batch {cheapest.batch:,} reaches {found.goal} with the fewest samples, batch {fewest.batch:,} with the fewest updates"
    missed = [p for p in found.points if not p.samples]
    if missed:
        batches = ", ".join(f"{p.batch:,}" for p in missed)
        yield f"not every run of batch{'es' * (len(missed) > 1)} {batches} reached it"


def _unknown(study: Study) -> Iterator[str]:
    found, points = study.shown, fit_points(study.shown.points)
    if found.fit is not None and found.fit.p_value is None:
        yield "whether the hyperbola is the right curve: two batches always lie on one"
    yield from (
        f"the best rate of batch {p.batch:,}: it lies at the edge of those tried" for p in found.points if p.edge
    )
    if points:
        yield f"anything of batches below {points[0].batch:,} or above {points[-1].batch:,}: there the curve is extended"


def _facts(study: Study) -> Iterator[tuple[str, str]]:
    found = study.shown
    if found.fit is not None and found.fit.fits:
        yield "critical batch", spoken(found.fit.critical_batch)
    yield "target", str(found.goal)
    yield "batches", f"{found.points[0].batch:,} to {found.points[-1].batch:,}"
    yield "runs that count", str(sum(len(point.runs) for point in found.points))


def _described(study: Study, title: str) -> str:
    """The table beside the pictures has their numbers; this says which curve goes with them."""
    return plain(
        f"{title}, by global batch. {study.words[0] if study.words else ''} The numbers are in the table below."
    )
