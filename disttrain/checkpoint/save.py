"""Save a checkpoint so that a kill, a full disk or a power cut loses nothing that was saved before."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection
from pathlib import Path

from torch import Tensor

from disttrain.checkpoint.files import fsync_directory, write_file
from disttrain.checkpoint.format import (
    MANIFEST,
    MAX_STEP,
    MODEL,
    STATE,
    TENSORS,
    Checkpoint,
    Manifest,
    checkpoints_directory,
    hidden_name,
    step_name,
)
from disttrain.checkpoint.load import verify_checkpoint
from disttrain.checkpoint.retention import prune, sweep
from disttrain.checkpoint.strict_json import dump_json
from disttrain.checkpoint.tensors import encode_tensors, size_of
from disttrain.checkpoint.tree import flatten
from disttrain.errors import CheckpointError

FREE_SPACE_FACTOR = 1.5
"""Free space wanted before a save, as a multiple of its bytes: others write to the same disk."""


def save_checkpoint(
    run_dir: Path, checkpoint: Checkpoint, *, keep: int, protect: Collection[int] = frozenset()
) -> Path:
    """Save a checkpoint, read it back, and only then delete old ones (see `disttrain.checkpoint.prune`).

    It appears under its name by one rename, complete and on the disk. A checkpoint of the same step is
    replaced. Equal content gives equal bytes. Only one process may save into ``run_dir`` at a time (see
    `run_lock`).

    Args:
        run_dir: directory of the run; it must exist.
        checkpoint: what to save; nothing in it is changed.
        keep: how many of the newest checkpoints to keep, at least 1.
        protect: steps to keep in any case, such as the best one.

    Returns:
        The directory of the checkpoint.

    Raises:
        CheckpointError: it cannot be saved. Checkpoints saved before are still there, and no unfinished
            files are.
    """
    if keep < 1:
        raise ValueError(f"keep is {keep}; at least one checkpoint must be kept")
    files = encode_checkpoint(checkpoint)
    directory = checkpoints_directory(run_dir)
    final = directory / step_name(checkpoint.step)
    try:
        if not directory.is_dir():
            directory.mkdir()
            fsync_directory(run_dir)
        sweep(run_dir)
        _require_space(directory, files)
        temporary = directory / hidden_name("tmp", checkpoint.step)
        try:
            write_directory(temporary, checkpoint.step, files)
            verify_checkpoint(temporary)
            publish(temporary, final, checkpoint.step)
        except BaseException:
            # The first error is the one to report; what cannot be deleted now, the next save sweeps up.
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    except OSError as error:
        raise CheckpointError(f"{final}: cannot be saved: {error}; older checkpoints are untouched") from error
    prune(run_dir, keep=keep, protect={*protect, checkpoint.step})
    return final


def encode_checkpoint(checkpoint: Checkpoint) -> dict[str, list[bytes | Tensor]]:
    """The pieces of every file but the manifest.

    Raises:
        CheckpointError: the checkpoint holds something that cannot be stored.
    """
    if type(checkpoint.step) is not int or not 0 <= checkpoint.step <= MAX_STEP:
        raise CheckpointError(f"{checkpoint.step!r} is not a number of updates")
    state, tensors = flatten(checkpoint.state)
    return {
        MODEL: encode_tensors(checkpoint.model, "the model"),
        TENSORS: encode_tensors(tensors, "the state of the run"),
        STATE: [dump_json({"step": checkpoint.step, "state": state})],
    }


def write_directory(path: Path, step: int, files: dict[str, list[bytes | Tensor]]) -> None:
    """Write a new directory with all files, the manifest last, and wait until all of it is on the disk."""
    path.mkdir()
    manifest = Manifest(step, {name: write_file(path / name, pieces) for name, pieces in files.items()})
    write_file(path / MANIFEST, [manifest.to_bytes()])
    fsync_directory(path)


def publish(temporary: Path, final: Path, step: int) -> None:
    """Give a finished directory its name. What had it before counts until then, and is swept up later."""
    if os.path.lexists(final):
        os.rename(final, final.with_name(hidden_name("old", step)))
    os.rename(temporary, final)
    fsync_directory(final.parent)


def _require_space(directory: Path, files: dict[str, list[bytes | Tensor]]) -> None:
    size = sum(size_of(piece) for pieces in files.values() for piece in pieces)
    free = shutil.disk_usage(directory).free
    if free < FREE_SPACE_FACTOR * size:
        raise CheckpointError(
            f"{directory}: the checkpoint takes {size / 1e6:.1f} MB, and {free / 1e6:.1f} MB are free; "
            f"{FREE_SPACE_FACTOR} times its size is wanted; free some space or keep fewer checkpoints"
        )
