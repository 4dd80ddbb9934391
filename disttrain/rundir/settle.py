"""What a start is: a new run, or the continuation of an old one. Decided by rank 0 alone, from its own directory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from disttrain.config import Recipe, flatten, load_recipe
from disttrain.engine.environment import Job
from disttrain.errors import InputError
from disttrain.rundir.rundir import (
    Place,
    check_place,
    default_dir,
    has_checkpoints,
    lost_updates,
    newest_run,
    recipe_to_resume,
    same_job,
    with_parts,
)


@dataclass(frozen=True, slots=True)
class Request:
    """What the user asked for.

    Attributes:
        recipe: the recipe given on the command line; None: that of the run, or for a new run the default.
        overrides: to apply where ``recipe`` is None.
        resume: ``no``: begin a run; ``must``: continue one; ``auto``: continue if there is something to continue, else begin.
        run_dir: where; None: see :func:`disttrain.rundir.rundir.default_dir`.
        job: the torchrun job that this start is part of. A run that the same job has begun is continued.
        trust: whether a saved recipe may have objects outside disttrain made.
        callbacks: objects that watch the run besides those that the recipe names.
        quiet: whether nothing is printed.
    """

    recipe: Recipe | None
    overrides: list[str]
    resume: Literal["no", "must", "auto"]
    run_dir: Path | None
    job: Job | None = None
    trust: bool = False
    callbacks: tuple[object, ...] = ()
    quiet: bool = False


def asked_for(request: Request) -> dict[str, dict[str, Any]]:
    """What all ranks have to have been told alike. Not the recipe's name, which may be that of a rank's own copy of the file."""
    recipe = {} if request.recipe is None else flatten(request.recipe)
    return {
        "recipe": {key: value for key, value in recipe.items() if key != "name"},
        "start": {"resume": request.resume, "overrides": " ".join(request.overrides)},
    }


def settle(request: Request, world_size: int) -> Place:
    """The run directory and the final recipe. Writes nothing.

    Raises:
        InputError: the directory holds a run that was not to be continued, or another one, or cannot be used.
        NoCheckpointError: there is nothing to continue, although there was or has to be.
    """
    if request.resume == "must":
        name = request.recipe.name if request.recipe is not None else None
        path = request.run_dir or newest_run(name)
        check_place(path)
        return Place(path, recipe_to_resume(path, request.recipe, request.overrides, trust=request.trust), goes_on=True)
    # Loaded here only under `auto` without a recipe: the default, unless there is a run that says better.
    recipe = request.recipe
    if recipe is None and request.run_dir is None:
        recipe = load_recipe(None, request.overrides)
    name = recipe.name if recipe is not None else None
    path = request.run_dir or default_dir(name or "run", fixed=request.resume == "auto", job=request.job)
    check_place(path)
    again = request.resume == "auto" or same_job(path, request.job)
    if again and has_checkpoints(path):
        return Place(path, recipe_to_resume(path, recipe, request.overrides, trust=request.trust), goes_on=True)
    return Place(path, _to_begin(recipe, request, world_size), goes_on=False, lost=_lost(path, again))


def _lost(path: Path, again: bool) -> int:
    """What begins anew; only where that was asked for."""
    lost = lost_updates(path) if again or not has_checkpoints(path) else 1
    if lost and not again:
        raise InputError(
            f"{path} already holds a run: pass --resume to continue it (--resume auto also begins it anew if it was ended "
            "before its first checkpoint), or choose another --run-dir"
        )
    return lost


def _to_begin(recipe: Recipe | None, request: Request, world_size: int) -> Recipe:
    recipe = recipe if recipe is not None else load_recipe(None, request.overrides)
    if recipe.data.order == "partition" and recipe.data.parts is None:
        recipe = with_parts(recipe, world_size)
    return recipe
