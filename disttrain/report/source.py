"""Which of the directories that may be reported one is, and the page's chapters on several."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from disttrain.errors import InputError
from disttrain.report import branches as branching
from disttrain.report import compare_page, run_page, scaling_page, study_page
from disttrain.report.blocks import Chapter, Section
from disttrain.report.branches import Branches, read_branches
from disttrain.report.planned import section
from disttrain.report.run import By, Run, is_run, read_run
from disttrain.report.study_page import Study, read_study
from disttrain.rundir.rundir import RECIPE
from disttrain.scaling.record import NAME as SCALE
from disttrain.scaling.record import Scaling
from disttrain.scaling.record import load as load_scaling
from disttrain.study.branch_report import RESULTS as BRANCHES
from disttrain.study.settings import SETTINGS
from disttrain.study.shown import RESULTS as STUDY

LAST = ("Events", "Environment")
"""Sections that a plan stands before."""
Source = Run | Study | Branches | Scaling


def read(path: Path) -> Source:
    """What is in a directory; nothing in it is run or written.

    Raises:
        InputError: it holds nothing of ours, or something that is not finished, is damaged or of another version.
    """
    if not path.is_dir():
        raise InputError(
            f"{path}: {'is no directory' if path.exists() else 'there is no such directory'}; a report is of "
            "the directory of a run, a study, branches or a scaling"
        )
    if (path / SCALE).is_file():
        return _positive(path, load_scaling(path))
    if (path / STUDY).is_file():
        return read_study(path)
    if (path / BRANCHES).is_file():
        return read_branches(path, path.resolve().name)
    if (path / SETTINGS).is_file() and not is_run(path):
        raise InputError(f"{path}: the study is not finished: {STUDY} is missing; disttrain study goes on with it")
    if not (path / RECIPE).is_file():
        raise InputError(
            f"{path} holds nothing to report: neither a run ({RECIPE}) nor a study ({STUDY}), branches ({BRANCHES}) or a scaling "
            f"({SCALE})"
        )
    return read_run(path)


def chapters(paths: Sequence[Path], by: By) -> list[Chapter]:
    """A chapter for each directory; several runs are one chapter, which compares them.

    Raises:
        InputError: see :func:`read`.
    """
    found = [(path, read(path)) for path in paths]
    runs = _named([each for _, each in found if isinstance(each, Run)])
    for run in runs:
        if by == "time" and not run.seconds:
            raise InputError(f"--by time: {run.path} has no line that says how fast it was")
    made = [_compared(runs, by)] if len(runs) > 1 else []
    for number, (path, each) in enumerate(found):
        if isinstance(each, Run) and len(runs) > 1:
            continue
        chapter = _chapter(each, by, f"f{number}")
        at = next((i for i, s in enumerate(chapter.sections) if s.title in LAST), len(chapter.sections))
        made.append(replace(chapter, sections=(*chapter.sections[:at], *section(path), *chapter.sections[at:])))
    return made


def _chapter(found: Source, by: By, key: str) -> Chapter:
    match found:
        case Run():
            return run_page.chapter(found, _branches(found), by, key)
        case Study():
            return study_page.chapter(found, key)
        case Branches():
            return branching.chapter(found, key)
        case Scaling():
            return scaling_page.chapter(found, key)


def _compared(runs: Sequence[Run], by: By) -> Chapter:
    """Runs compared, and below that what each has beside it."""
    chapter, more = compare_page.chapter(runs, by, "compared"), list[Section]()
    for number, run in enumerate(runs):
        branches = _branches(run)
        if branches is not None:
            more.append(Section(f"Branches of {run.name}", branching.parts(branches, f"branches{number}")))
        more += [Section(f"{each.title} of {run.name}", each.parts) for each in section(run.path)]
    return replace(chapter, sections=(*chapter.sections, *more))


def _branches(run: Run) -> Branches | None:
    place = run.path / "branches"
    return read_branches(place, run.name) if (place / BRANCHES).is_file() else None


def _positive(path: Path, scaling: Scaling) -> Scaling:
    """``scaling``, of which every throughput can be divided by.

    Raises:
        InputError: one cannot.
    """
    speeds = [run.samples_per_second for run in scaling.runs] + [ahead.samples_per_second for ahead in scaling.forecast]
    if not scaling.runs or not all(0.0 < end < math.inf for s in speeds for end in (s.low, s.median, s.high)):
        raise InputError(f"{path / SCALE}: there is no run in it, or one whose throughput is not a positive number")
    return scaling


def _named(runs: Sequence[Run]) -> list[Run]:
    """Runs whose directories are called alike have the name of the directory above before theirs."""
    names = [run.name for run in runs]
    return [
        replace(run, name=f"{run.path.resolve().parent.name}/{run.name}") if names.count(run.name) > 1 else run
        for run in runs
    ]
