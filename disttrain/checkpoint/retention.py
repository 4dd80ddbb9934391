"""Which checkpoints stay, and how the others go: out of sight by one rename, then deleted."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection
from pathlib import Path

from disttrain.checkpoint.files import fsync_directory
from disttrain.checkpoint.format import (
    checkpoints_directory,
    hidden_name,
    list_checkpoints,
    parse_hidden_name,
    step_name,
)
from disttrain.checkpoint.load import read_manifest
from disttrain.errors import CheckpointError


def prune(run_dir: Path, *, keep: int, protect: Collection[int] = frozenset()) -> list[int]:
    """Delete old checkpoints but the newest ``keep`` sound ones and the steps in ``protect``.

    Sound means that the manifest is good and all sizes are right: a damaged checkpoint must not take the
    place of a good one. Damaged checkpoints go too once ``keep`` sound ones are newer; before that they
    stay, to be looked at.

    Args:
        run_dir: directory of the run.
        keep: how many of the newest to keep, at least 1.
        protect: steps to keep in any case, such as the best one.

    Returns:
        The steps that were deleted, oldest first.

    Raises:
        CheckpointError: a directory cannot be deleted; all that should be kept is untouched.
    """
    if keep < 1:
        raise ValueError(f"keep is {keep}; at least one checkpoint must be kept")
    directory = checkpoints_directory(run_dir)
    found = list_checkpoints(run_dir)
    sound = [step for step, path in found.items() if _is_sound(path)]
    oldest_kept = sound[keep - 1] if len(sound) >= keep else 0
    doomed = sorted(step for step in found if step < oldest_kept and step not in protect)
    try:
        for step in doomed:
            os.rename(found[step], directory / hidden_name("del", step))
        if doomed:
            fsync_directory(directory)
        sweep(run_dir)
    except OSError as error:
        raise CheckpointError(f"{directory}: cannot delete old checkpoints: {error}") from error
    return doomed


def sweep(run_dir: Path) -> None:
    """Delete what killed processes left behind. Only the one process that saves into ``run_dir`` may call
    this.

    Raises:
        OSError: something cannot be deleted.
    """
    directory = checkpoints_directory(run_dir)
    for path in sorted(directory.iterdir()):
        kind, step = parse_hidden_name(path.name) or ("", 0)
        if kind in ("tmp", "del") or (kind == "old" and os.path.lexists(directory / step_name(step))):
            delete_tree(path)


def delete_tree(path: Path) -> None:
    """Delete a directory, or whatever stands in its place; symbolic links are not followed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _is_sound(path: Path) -> bool:
    """Whether it counts among those kept. What is wrong with one that does not is said when somebody loads it."""
    try:
        read_manifest(path)
    except CheckpointError:
        return False
    return True
