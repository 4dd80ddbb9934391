"""What a scaling was asked, kept in its directory, so that it goes on as the same one or not at all."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from disttrain.config import Recipe, load_recipe, recipe_differences
from disttrain.errors import InputError
from disttrain.methods.model import facts_of
from disttrain.plan.plan import StepPlan, resolve_plan
from disttrain.rundir.rundir import RECIPE, check_place, replace_file, temporary_of, write_recipe
from disttrain.rundir.written import read_settings
from disttrain.scaling.record import Mode
from disttrain.tasks.make import make_task, stated_sizes
from disttrain.version import __version__

SETTINGS, LAUNCHES = "settings.json", "launches"
FORMAT = 1
MAY_CHANGE = ("ranks", "modes", "repeats")
"""What only adds launches."""
STILL = 1e-9
"""Of the learning rate: a step takes as long, and nothing diverges, whatever the batch and whether gradients travel."""
FORECAST = (8, 64, 512)
"""Ranks that are forecast."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Of the ranks of a launch.

    Attributes:
        windows: in each of them every turn is made once, and the step twice.
        seconds: of a turn.
        shares: samples of a rank whose forward and backward passes are measured too; of one rank only.
    """

    windows: int
    seconds: float
    shares: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Settings:
    """Of a scaling.

    Attributes:
        ranks: rising.
        hosts: machines that share the ranks evenly; none: this one.
        link: bits per second between hosts, as somebody says; None: not known.
        engine: of several ranks.
        windows, seconds: of each launch; see :class:`Asked`.
        repeats: launches of each number of ranks.
    """

    ranks: tuple[int, ...]
    modes: tuple[Mode, ...] = ("weak", "strong")
    hosts: tuple[str, ...] = ()
    link: float | None = None
    engine: str = "ddp"
    device: str = "auto"
    windows: int = 40
    repeats: int = 3
    seconds: float = 0.05

    def __post_init__(self) -> None:
        given = ",".join(map(str, self.ranks))
        if not self.ranks or min(self.ranks) < 1 or max(self.ranks) > 100_000:
            raise InputError(f"--ranks {given!r}: expected numbers of ranks of at least 1, such as 1,2,4")
        if len(set(self.ranks)) < len(self.ranks):
            raise InputError(f"--ranks {given} names a number twice; --repeats measures each more often")
        for name, least in (("windows", 1), ("repeats", 1)):
            if not least <= getattr(self, name) <= 1000:
                raise InputError(f"--{name} {getattr(self, name)}: expected a number from {least} to 1000")
        if not 0.001 <= self.seconds <= 600:
            raise InputError(f"--seconds {self.seconds:g}: expected seconds of a turn, from 0.001 to 600")
        if self.engine not in ("ddp", "horovod", "horovod-mpi"):
            raise InputError(f"--engine {self.engine!r}: expected ddp, horovod or horovod-mpi")
        if self.link is not None and not self.hosts:
            raise InputError("--link is of the network between --hosts, and none are given")
        for ranks in self.ranks:
            if self.hosts and ranks > 1 and ranks % len(self.hosts):
                raise InputError(f"--ranks {ranks}: {len(self.hosts)} hosts cannot share them evenly")


@dataclass(frozen=True, slots=True)
class Base:
    """The recipe that is scaled, and what it comes to on its least number of ranks."""

    recipe: Recipe
    own: StepPlan
    least: int

    def batch(self, mode: Mode, ranks: int) -> int:
        """The global batch on so many ranks."""
        return self.own.global_batch if mode == "strong" else self.own.global_batch // self.least * ranks

    def on(self, mode: Mode, ranks: int) -> Recipe:
        """The recipe on so many ranks: full batches only, and nothing besides training."""
        recipe = self.recipe
        batch = {"global_": self.batch(mode, ranks), "per_rank": None, "accumulation": 1, "last": "drop"}
        changes: dict[str, Any] = {
            "batch": recipe.batch.model_copy(update=batch),
            "optimizer": recipe.optimizer.model_copy(update={"lr": recipe.optimizer.lr * STILL}),
            "evaluate": None,
            "early_stopping": None,
            "callbacks": [],
            "log": recipe.log.model_copy(update={"sinks": [], "sample_ids": False}),
        }
        return recipe.model_copy(update=changes)

    def plan(self, mode: Mode, ranks: int) -> StepPlan:
        """Of that recipe.

        Raises:
            InputError: it cannot be trained on so many ranks.
        """
        return _plan(self.on(mode, ranks), ranks)


def make_base(recipe: Recipe, settings: Settings) -> Base:
    """Check that all that is asked for can be run.

    Raises:
        InputError: it cannot; the message says what of it.
    """
    for key in ("growth", "adaptive"):
        if getattr(recipe.batch, key) is not None:
            raise InputError(f"batch.{key} changes the batch, and a scaling is of one: set batch.{key} to null")
    least = min(settings.ranks)
    base = Base(recipe, _plan(recipe, least), least)
    if "weak" in settings.modes and base.own.global_batch % least:
        raise InputError(
            f"--mode weak: the batch of {base.own.global_batch} samples cannot be divided among {least} ranks, so no batch of a "
            f"rank can stay the same: choose a multiple of {least}"
        )
    for mode in settings.modes:
        for ranks in settings.ranks:
            if base.batch(mode, ranks) < ranks:
                raise InputError(
                    f"--ranks {ranks}: the global batch has {base.batch(mode, ranks)} samples, which is less than one a rank"
                )
            try:
                base.plan(mode, ranks)
            except (InputError, ValueError) as error:
                raise InputError(f"--ranks {ranks} ({mode} scaling): {error}") from None
    return base


def _plan(recipe: Recipe, ranks: int) -> StepPlan:
    task = make_task(recipe)
    sizes = stated_sizes(recipe)
    facts = facts_of(recipe, task)
    return resolve_plan(recipe, sizes.train, sizes.test, ranks, facts, validation_samples=sizes.validation)


def open_scaling(directory: Path, recipe: Recipe, settings: Settings) -> None:
    """Make the directory, or find the same scaling in it.

    Raises:
        InputError: it holds another scaling, one of another version, or something else; nothing was changed.
    """
    path = directory / SETTINGS
    check_place(directory, "--to")
    if path.is_file():
        _same(directory, recipe, settings)
    elif directory.exists() and (
        not directory.is_dir() or any(entry.name != temporary_of(SETTINGS) for entry in directory.iterdir())
    ):
        raise InputError(f"--to {directory}: it is there and holds no scaling; choose another directory")
    directory.mkdir(parents=True, exist_ok=True)
    said = {"format": FORMAT, "disttrain": __version__, **asdict(settings)}
    replace_file(path, json.dumps(said, indent=1) + "\n")
    write_recipe(directory, recipe)


def _same(directory: Path, recipe: Recipe, settings: Settings) -> None:
    saved = read_settings(directory / SETTINGS, FORMAT, "--to")
    before = load_recipe(directory / RECIPE) if (directory / RECIPE).is_file() else recipe
    lines = [f"recipe: {line}" for line in recipe_differences(before, recipe)]
    now = json.loads(json.dumps(asdict(settings)))
    lines += [f"--{k}: {saved.get(k)} -> {v}" for k, v in now.items() if k not in MAY_CHANGE and saved.get(k) != v]
    if min(saved.get("ranks") or [0]) != min(settings.ranks):
        lines += [
            f"--ranks: beginning with {min(saved.get('ranks') or [0])} -> {min(settings.ranks)}, which weak scaling begins with"
        ]
    if lines:
        raise InputError(
            f"{directory} is another scaling than this (saved -> given):"
            + "".join(f"\n  {line}" for line in lines)
            + "\nundo that, or choose another --to"
        )
