"""Which directory a run lives in."""

from __future__ import annotations

import time
from pathlib import Path

from disttrain.config import Recipe, dump_recipe, load_recipe, recipe_differences, require_consent
from disttrain.errors import InputError, NoCheckpointError

RUNS = Path("runs")
RECIPE = "recipe.yaml"
METRICS = "metrics.jsonl"


def new_run_dir(requested: Path | None, name: str) -> Path:
    """``requested``, or ``runs/NAME-DATE-TIME``; made if need be.

    Raises:
        InputError: it already holds a run, or cannot be made.
    """
    path = requested or RUNS / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    if (path / RECIPE).exists() or (path / METRICS).exists() or (path / "checkpoints").exists():
        raise InputError(f"{path} already holds a run: pass --resume to continue it, or choose another --run-dir")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--run-dir {path} cannot be made: {error.strerror}") from None
    return path


def old_run_dir(requested: Path | None, name: str | None) -> Path:
    """``requested``, or the newest run of that name (of any name when None) below ``runs/``.

    Raises:
        NoCheckpointError: there is no such run.
    """
    if requested is not None:
        if not (requested / RECIPE).is_file():
            raise NoCheckpointError(f"{requested} holds no run to resume: {RECIPE} is missing")
        return requested
    runs = sorted(p.parent for p in RUNS.glob(f"{name or '*'}-????????-??????/{RECIPE}"))
    if not runs:
        raise NoCheckpointError(f"there is no run of {name or 'any recipe'} below {RUNS}/: name it with --run-dir DIR")
    return max(runs, key=lambda path: (path / RECIPE).stat().st_mtime)


def write_recipe(run_dir: Path, recipe: Recipe) -> None:
    """Store the resolved recipe with the run."""
    (run_dir / RECIPE).write_text(dump_recipe(recipe), encoding="utf-8")


def recipe_to_resume(run_dir: Path, given: Recipe | None, overrides: list[str], *, trust: bool = False) -> Recipe:
    """The saved recipe with ``overrides``, or ``given`` if it is the same training run.

    What only says how the run is executed (micro-batch, checkpoints, logging, workers) and how long it goes on may differ.

    Args:
        trust: whether the saved recipe may have objects outside disttrain made; ``given`` may.

    Raises:
        InputError: ``given`` is another run, and the message names each difference; or there is no consent.
    """
    saved = load_recipe(run_dir / RECIPE)
    wanted = given if given is not None else load_recipe(run_dir / RECIPE, overrides)
    if given is None and not trust:
        require_consent(wanted, run_dir / RECIPE)
    if wanted.data.order == "partition" and wanted.data.parts is None:
        wanted = with_parts(wanted, saved.data.parts)
    if different := recipe_differences(saved, wanted):
        lines = "".join(f"\n  {line}" for line in different)
        raise InputError(f"{run_dir} is another training run than this recipe (saved -> given):{lines}")
    return wanted


def with_parts(recipe: Recipe, parts: int | None) -> Recipe:
    """``recipe`` with the number of parts of its ``partition`` order written down: a run keeps it on any later world."""
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"parts": parts})})
