"""Which directory a run lives in, and whether there is something in it to continue."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from disttrain.checkpoint import list_checkpoints
from disttrain.checkpoint.files import fsync_directory, write_file
from disttrain.config import Recipe, dump_recipe, load_recipe, recipe_differences, require_consent
from disttrain.engine.environment import Job
from disttrain.errors import DisttrainError, InputError, NoCheckpointError
from disttrain.telemetry.jsonl import read_records

RUNS = Path("runs")
RECIPE = "recipe.yaml"
METRICS = "metrics.jsonl"
ENVIRONMENT = "environment.jsonl"
JOB = ".job"
MEMORY = "memory"
OURS = (RECIPE, METRICS, ENVIRONMENT, JOB, MEMORY, ".lock", "log")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a run lives.

    Attributes:
        path: the run directory.
        recipe: the final recipe.
        goes_on: there are checkpoints to continue from.
        lost: updates of an attempt that left no checkpoint; they are made again.
    """

    path: Path
    recipe: Recipe
    goes_on: bool
    lost: int = 0


def default_dir(name: str, *, fixed: bool, job: Job | None) -> Path:
    """``runs/NAME`` where the same command has to find it again; ``runs/NAME-JOB`` where torchrun may start the ranks again;
    else ``runs/NAME-DATE-TIME``."""
    if fixed:
        return RUNS / name
    if job is not None and job.restarts:
        return RUNS / f"{name}-{job.short}"
    now = RUNS / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    taken = (
        now.with_name(f"{now.name}-{number}") for number in itertools.count(2)
    )  # a sweep begins several in a second
    return now if not now.exists() else next(path for path in taken if not path.exists())


def newest_run(name: str | None) -> Path:
    """The newest run of that name (of any name when None) below ``runs/``.

    Raises:
        NoCheckpointError: there is none.
    """
    patterns = (
        ("*",) if name is None else (name, f"{name}-????????", f"{name}-????????-??????", f"{name}-????????-??????-*")
    )
    found = [path for pattern in patterns for path in RUNS.glob(f"{pattern}/{RECIPE}")]
    if not found:
        raise NoCheckpointError(f"there is no run of {name or 'any recipe'} below {RUNS}/: name it with --run-dir DIR")
    return max(found, key=lambda path: path.stat().st_mtime).parent


def check_place(run_dir: Path, option: str = "--run-dir") -> None:
    """Refuse a directory that could not be written to, before anything is written anywhere.

    Args:
        option: that named it, for the message.

    Raises:
        InputError: its name is impossible, it or its parent is no writable directory, or one of our files in it is a
            symbolic link, which might lead anywhere.
    """
    try:
        for name in OURS:
            if (run_dir / name).is_symlink():
                raise InputError(f"{run_dir / name} is a symbolic link, which is not followed: remove it")
        path = run_dir
        while not os.path.lexists(path):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                os.lstat(path)  # says what lexists() keeps quiet about, such as a name that is too long
            path = path.parent
        if not path.is_dir():
            raise InputError(f"{option} {run_dir} cannot be made: {path} is not a directory")
        if not os.access(path, os.W_OK | os.X_OK):
            raise InputError(f"{option} {run_dir} cannot be made: {path} is not writable")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(f"{option} {run_dir} cannot be made: {reason}") from None


def has_checkpoints(run_dir: Path) -> bool:
    """Whether there is a checkpoint, sound or not: if all are damaged, that is for the user to hear and not to be passed over."""
    return bool(list_checkpoints(run_dir))


def lost_updates(run_dir: Path) -> int:
    """How many updates an attempt without any checkpoint made, by its metrics.

    Raises:
        NoCheckpointError: so many that there must have been a checkpoint: it was deleted, or is out of reach.
    """
    steps = [record.get("step") for record in read_records(run_dir / METRICS)]
    lost = max((step for step in steps if type(step) is int), default=0)
    if lost:
        every = load_recipe(run_dir / RECIPE).checkpoint.every_steps
        if every is not None and lost > every:
            raise NoCheckpointError(
                f"{run_dir} had made {lost} updates and a checkpoint every {every}, and holds none: bring checkpoints/ back, "
                "or choose another --run-dir to begin from zero"
            )
    return lost


def same_job(run_dir: Path, job: Job | None) -> bool:
    """Whether the run was begun by an earlier start of this very torchrun job."""
    try:
        return job is not None and (run_dir / JOB).read_text(encoding="utf-8") == job.name
    except (OSError, UnicodeDecodeError):  # no such file, or none of ours: then it was not this job
        return False


def make_place(run_dir: Path) -> bool:
    """Make the directory. Returns whether this call made it.

    Raises:
        InputError: it cannot be made.
    """
    made = not run_dir.exists()
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--run-dir {run_dir} cannot be made: {error.strerror}") from None
    return made


def note_job(run_dir: Path, job: Job | None) -> None:
    """Write down which job uses the directory, for its later starts."""
    if job is not None:
        replace_file(run_dir / JOB, job.name)


def leave_place(run_dir: Path) -> None:
    """Undo :func:`make_place` of a directory that it made."""
    shutil.rmtree(run_dir, ignore_errors=True)


def replace_file(path: Path, text: str) -> None:
    """Give ``path`` this content by one rename, and only if it has another one: whatever happens, one of the two is there.

    Raises:
        DisttrainError: it cannot be written; the earlier content is untouched.
    """
    data, temporary = text.encode(), path.with_name(temporary_of(path.name))
    try:
        if path.is_file() and path.read_bytes() == data:
            return
        temporary.unlink(missing_ok=True)
        write_file(temporary, [data])
        os.replace(temporary, path)
        fsync_directory(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):  # the first error is the one to tell
            temporary.unlink(missing_ok=True)
        raise DisttrainError(f"{path}: cannot be written: {error.strerror}") from None


def temporary_of(name: str) -> str:
    """What a file is called while it is written; a process that is killed then leaves it behind."""
    return f".{name.lstrip('.')}.tmp"


def write_recipe(run_dir: Path, recipe: Recipe) -> None:
    """Store the resolved recipe with the run."""
    replace_file(run_dir / RECIPE, dump_recipe(recipe))


def recipe_to_resume(run_dir: Path, given: Recipe | None, overrides: list[str], *, trust: bool = False) -> Recipe:
    """The saved recipe with ``overrides``, or ``given`` if it is the same training run.

    What only says how the run is executed (micro-batch, checkpoints, logging, workers) and how long it goes on may differ.

    Args:
        trust: whether the saved recipe may have objects outside disttrain made; ``given`` may.

    Raises:
        InputError: ``given`` is another run, and the message names each difference; or there is no consent.
        NoCheckpointError: there is no saved recipe.
    """
    if not (run_dir / RECIPE).is_file():
        raise NoCheckpointError(f"{run_dir} holds no run to resume: {RECIPE} is missing (--resume auto begins one)")
    saved = load_recipe(run_dir / RECIPE)
    wanted = given if given is not None else load_recipe(run_dir / RECIPE, overrides)
    if given is None and not trust:
        require_consent(wanted, run_dir / RECIPE, overrides)
    if wanted.data.order == "partition" and wanted.data.parts is None:
        wanted = with_parts(wanted, saved.data.parts)
    if different := recipe_differences(saved, wanted):
        lines = "".join(f"\n  {line}" for line in different)
        raise InputError(
            f"{run_dir} is another training run than this recipe (saved -> given):{lines}\n"
            "undo that, or choose another run directory"
        )
    return wanted


def with_parts(recipe: Recipe, parts: int | None) -> Recipe:
    """``recipe`` with the number of parts of its ``partition`` order written down: a run keeps it on any later world."""
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"parts": parts})})
