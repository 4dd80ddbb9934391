"""What a study was asked, kept in its directory, so that it goes on as the same study or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from disttrain.config import Recipe, load_recipe, recipe_differences
from disttrain.errors import InputError
from disttrain.rundir import written
from disttrain.rundir.rundir import RECIPE, check_place, replace_file, temporary_of, write_recipe
from disttrain.study.asked import check_asked
from disttrain.version import __version__

SETTINGS, RUNS = "settings.json", "runs"
FORMAT = 1
MAY_CHANGE = ("batches", "seeds", "jobs", "ranks", "engine")
"""What only adds trials, or says how they are executed."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Of a study.

    Attributes:
        batches: global batches, rising.
        metric, value: the target; without a value it is derived, see :mod:`disttrain.study.study`.
        rates: most rates tried for a batch.
        seeds: runs of each batch at its best rate.
        law: how the rate follows the batch to begin with: linear, sqrt, none, or auto: the recipe's own ``lr_scaling``
            where it has a ``reference_batch``, or else its optimizer's law.
        budget: samples after which a run that has not reached the target is given up; None: four times the recipe's length.
        every: samples between evaluations; None: a fortieth of the recipe's length.
        jobs, ranks, engine: how trials are run; see :class:`disttrain.study.pool.Pool`.
    """

    batches: tuple[int, ...]
    metric: str = "loss"
    value: float | None = None
    rates: int = 7
    seeds: int = 3
    law: str = "auto"
    budget: int | None = None
    every: int | None = None
    jobs: int = 1
    ranks: int = 1
    engine: str = "ddp"

    def __post_init__(self) -> None:
        if len(self.batches) < 2:
            raise InputError(
                f"--batches {', '.join(map(str, self.batches)) or 'none'}: a study compares at least 2, and says whether the "
                "hyperbola fits from 3 on"
            )
        check_asked(
            law=self.law,
            engine=self.engine,
            rates=(self.rates, 3),
            seeds=(self.seeds, 2),
            jobs=(self.jobs, 1),
            ranks=(self.ranks, 1),
        )
        for name in ("budget", "every"):
            value = getattr(self, name)
            if value is not None and not 1 <= value <= 10**12:
                raise InputError(f"--{name} {value}: expected samples, from 1 to 10^12")


@contextmanager
def study_lock(directory: Path) -> Iterator[None]:
    """Hold the directory of a study: two at once would run the same trials.

    Raises:
        InputError: another process holds it.
    """
    from disttrain.checkpoint import run_lock  # torch is loaded where something is run

    with run_lock(directory, "is at a study there; wait for it, stop it, or choose another --out"):
        yield


@contextmanager
def open_study(directory: Path, recipe: Recipe, settings: Settings) -> Iterator[None]:
    """Make the directory, or find the same study in it, and hold it.

    Raises:
        InputError: it cannot be written to, holds another study, one of another version, or something else, or a study is going
            on there; nothing was changed.
    """
    check_place(directory, "--out")
    path = directory / SETTINGS
    if path.is_file():
        _same(directory, recipe, settings)
    elif directory.exists() and any(
        entry.name not in (".lock", temporary_of(SETTINGS)) for entry in directory.iterdir()
    ):
        raise InputError(f"--out {directory}: it is there and holds no study; choose another directory")
    directory.mkdir(parents=True, exist_ok=True)
    said = {"format": FORMAT, "disttrain": __version__, **asdict(settings)}
    with study_lock(directory):
        replace_file(path, json.dumps(said, indent=1) + "\n")
        write_recipe(directory, recipe)
        yield


def _same(directory: Path, recipe: Recipe, settings: Settings) -> None:
    saved = read_settings(directory)
    known = (directory / RECIPE).is_file()
    if not known and (directory / RUNS).exists():  # without runs it was killed before it had written the recipe
        raise InputError(f"{directory}: {RECIPE} is missing, so there is no telling whether this is the same study")
    before = load_recipe(directory / RECIPE) if known else recipe
    lines = [f"recipe: {line}" for line in recipe_differences(before, recipe)]
    there, now = _options(saved), _options(asdict(settings))
    lines += [f"--{name}: {there[name]} -> {given}" for name, given in now.items() if there[name] != given]
    if lines:
        raise InputError(
            f"{directory} is another study than this (saved -> given):"
            + "".join(f"\n  {line}" for line in lines)
            + "\nundo that, or choose another --out"
        )


def _options(settings: Mapping[str, Any]) -> dict[str, str]:
    """What makes it this study, by the options that say it."""
    names = [each.name for each in fields(Settings) if each.name not in (*MAY_CHANGE, "metric", "value")]
    found = {name: settings.get(name) for name in names}
    value = settings.get("value")
    found["target"] = value if value is None else f"{settings.get('metric')}={value}"
    return {name: "(default)" if value is None else str(value) for name, value in found.items()}


def read_settings(directory: Path) -> Mapping[str, Any]:
    """What a study was asked, as plain data.

    Raises:
        InputError: it cannot be read, or another version of disttrain has written it in another form.
    """
    return written.read_settings(directory / SETTINGS, FORMAT, "--out")
