"""``disttrain report``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from disttrain.errors import InputError

Directories = Annotated[
    list[Path], typer.Argument(help="Directories of runs, studies, branches and scalings.", metavar="DIR ...")
]
To = Annotated[
    Path | None,
    typer.Option("--to", help="Default: report.html, in the directory itself where there is one.", metavar="FILE.html"),
]
Axis = Annotated[str, typer.Option("--by", help="What curves of runs are drawn over.", metavar="samples|updates|time")]


def report(directories: Directories, to: To = None, by: Axis = "samples") -> None:
    """Make one HTML page of what was measured, with a verdict in its first lines: of a run, of several compared, of a study,
    branches or a scaling. The page needs no script and nothing from elsewhere. Trains nothing."""
    axis = _axis(by)
    target = to if to is not None else (directories[0] if len(directories) == 1 else Path()) / "report.html"

    from disttrain.report.page import page
    from disttrain.report.source import chapters
    from disttrain.report.svg import require
    from disttrain.rundir.rundir import replace_file

    require()
    _check(target, "--to" if to is not None else "the report")
    made = chapters(list(dict.fromkeys(directories)), axis)
    replace_file(target, page(made))
    for chapter in made:
        print(f"{chapter.name}: {chapter.verdict.sentence}")
    print(f"written: {target}")


def _axis(word: str) -> Literal["samples", "updates", "time"]:
    match word:
        case "samples" | "updates" | "time":
            return word
    raise InputError(f"--by {word!r}: expected samples, updates or time")


def _check(target: Path, what: str) -> None:
    """See that the page can be written, before anything is read.

    Raises:
        InputError: it cannot.
    """
    if target.is_dir():
        raise InputError(f"{what} {target}: it is a directory; expected a file such as {target / 'report.html'}")
    if target.is_symlink():
        raise InputError(f"{what} {target}: it is a symbolic link, which is not followed: remove it")
    place = target.parent
    if not place.is_dir():
        raise InputError(f"{what} {target}: there is no directory {place}")
    if not os.access(place, os.W_OK | os.X_OK):
        raise InputError(f"{what} {target}: {place} is not writable")
