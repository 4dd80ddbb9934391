"""What a run has learned of how many samples fit through its model at once: a small file for each rank that ran out of memory,
and one for what was found by trying."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from disttrain.config import Recipe
from disttrain.engine.agreement import everyone, on_main
from disttrain.engine.base import Engine
from disttrain.engine.memory import device_name
from disttrain.engine.world import World
from disttrain.errors import DisttrainError, InputError
from disttrain.nn.facts import ModelFacts
from disttrain.plan.plan import StepPlan
from disttrain.plan.smaller import halved
from disttrain.rundir.rundir import MEMORY, METRICS, Place, replace_file
from disttrain.rundir.written import read_json

log = logging.getLogger("disttrain")


@dataclass(frozen=True, slots=True)
class Fit:
    """One finding. It holds for a recipe that states the same, on the same kind of device.

    Attributes:
        stated: what the recipe says: :func:`stated`.
        device: :func:`disttrain.engine.memory.device_name`.
        ranks: how many there were.
        most: samples at once that fitted when tried, or that are to be used next.
        too_large: what ``rank`` ran out of memory with in ``update``; 0: nothing did, ``most`` was found by trying.
    """

    stated: str
    device: str
    ranks: int
    most: int
    too_large: int = 0
    rank: int = 0
    update: int = 0


@dataclass(frozen=True, slots=True)
class Limit:
    """What a run knows of its memory.

    Attributes:
        most: samples at once; None: nothing is known but what the recipe says.
        fits: the findings that this follows from.
    """

    most: int | None
    fits: tuple[Fit, ...]

    @staticmethod
    def of(fits: Iterable[Fit]) -> Limit:
        """The smallest number decides."""
        found = tuple(sorted(set(fits), key=lambda fit: fit.most))
        return Limit(found[0].most if found else None, found)

    def keep(self, run_dir: Path) -> None:
        """Write the findings down, and say what follows from them.

        Raises:
            DisttrainError: they cannot be written.
        """
        for fit in reversed(self.fits):
            note_fit(run_dir, fit)
        for fit in self.fits[:1]:
            if fit.too_large:
                log.warning(
                    "at most %d samples at once, because rank %d ran out of memory with %d in update %d; to change that, "
                    "state another batch.per_rank_max",
                    *(fit.most, fit.rank, fit.too_large, fit.update),
                )
            else:
                log.info("batch.per_rank_max auto: at most %d samples at once fit on each rank", fit.most)


def stated(recipe: Recipe) -> str:
    """What a recipe says of the samples at once; who changes it means it, and earlier findings no longer count."""
    batch = recipe.batch
    return f"per_rank {batch.per_rank}" if batch.per_rank is not None else f"per_rank_max {batch.per_rank_max}"


def known_limit(place: Place, engine: Engine, search: Callable[[Recipe, World, int | None], int]) -> Limit:
    """What earlier starts of the run have found on such devices and, for ``per_rank_max: auto``, what is found now; the same
    on all ranks.

    Findings count as long as the recipe states the same. Every rank reads its own view of the run directory, because a rank
    that runs out of memory may write to no other.

    Args:
        search: finds how many samples fit on this rank, for a recipe, at most so many.

    Raises:
        DisttrainError: on all ranks: a file is damaged, or the search failed.
    """
    world, here = engine.world, (stated(place.recipe), device_name(engine.world.device))
    if not on_main(engine, lambda: (place.path / METRICS).exists()):  # a new run, where another may have been
        everyone(engine, lambda: forget_fits(place.path))
    mine = everyone(engine, lambda: [fit for fit in read_fits(place.path) if (fit.stated, fit.device) == here])
    known = {fit for part in engine.all_gather_object(mine) for fit in part}
    failed = {fit for fit in known if fit.too_large}
    if place.recipe.batch.per_rank_max != "auto":
        return Limit.of(failed)
    found = {fit for fit in known - failed if fit.ranks == world.size}
    if not found:
        most = everyone(engine, lambda: search(place.recipe, world, Limit.of(failed).most))
        found = {Fit(*here, world.size, min(engine.all_gather_object(most)))}
    return Limit.of(failed | found)


def note_fit(run_dir: Path, fit: Fit) -> None:
    """Write down what was found, in place of what the same rank found before.

    Raises:
        DisttrainError: it cannot be written.
    """
    path = run_dir / MEMORY / (f"rank-{fit.rank}.json" if fit.too_large else "found.json")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DisttrainError(f"{path}: cannot be written: {error.strerror}") from None
    replace_file(path, json.dumps(asdict(fit)) + "\n")


def note_shortage(run_dir: Path, recipe: Recipe, plan: StepPlan, model: ModelFacts, world: World, update: int) -> str:
    """Write down that a rank ran out of memory, for the next start of its run.

    Returns:
        What follows "out of memory with".

    Raises:
        OutOfMemoryError: nothing smaller is left to go on with.
    """
    size, most = plan.micro_batch, halved(recipe, plan, model).micro_batch
    here = (stated(recipe), device_name(world.device), world.size)
    note_fit(run_dir, Fit(*here, most, too_large=size, rank=world.rank, update=update))
    return f"{size} samples at once; the same command with --resume auto goes on from the last checkpoint with {most}"


def read_fits(run_dir: Path) -> list[Fit]:
    """What this rank's view of the run directory knows.

    Raises:
        InputError: a file is not what disttrain writes.
    """
    return [_read(path) for path in sorted((run_dir / MEMORY).glob("*.json"))]


def forget_fits(run_dir: Path) -> None:
    """What an earlier run left behind that had its directory here.

    Raises:
        InputError: it cannot be removed.
    """
    for path in (run_dir / MEMORY).glob("*.json"):
        try:
            path.unlink(missing_ok=True)  # several ranks of one machine may be at it
        except OSError as error:
            raise InputError(f"{path}: cannot be removed: {error.strerror}") from None


def _read(path: Path) -> Fit:
    found: Any = read_json(path, "remove it")
    kinds = {field.name: str if field.name in ("stated", "device") else int for field in fields(Fit)}
    if (
        not isinstance(found, dict)
        or found.keys() != kinds.keys()
        or any(type(value) is not kinds[name] for name, value in found.items())
        or found["most"] < 1
    ):
        raise InputError(f"{path}: is not what disttrain writes, remove it")
    return Fit(**found)
