"""Find, verify and load checkpoints. No file is believed before its size and sha256 match the manifest."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from disttrain.checkpoint.files import read_bounded, read_verified, verify_file
from disttrain.checkpoint.format import (
    MANIFEST,
    MODEL,
    STATE,
    TENSORS,
    Checkpoint,
    Manifest,
    checkpoints_directory,
    list_checkpoints,
    parse_step_name,
)
from disttrain.checkpoint.strict_json import MAX_JSON, parse_json
from disttrain.checkpoint.tensors import decode_tensors
from disttrain.checkpoint.tree import unflatten
from disttrain.errors import CheckpointError, NoCheckpointError

Refused = list[tuple[Path, str]]
"""Checkpoints that were passed over, newest first, and why."""


class Loaded(NamedTuple):
    """The newest checkpoint that loads, where it was, and the newer ones that do not load."""

    checkpoint: Checkpoint
    path: Path
    refused: Refused


def load_latest(run_dir: Path, device: torch.device | str = "cpu") -> Loaded:
    """Load the checkpoint with the highest step that loads. Reads each file once.

    Raises:
        NoCheckpointError: there is none; the message says why each one was refused.
    """
    refused: Refused = []
    for path in list_checkpoints(run_dir).values():
        try:
            return Loaded(load_checkpoint(path, device), path, refused)
        except CheckpointError as error:
            refused.append((path, str(error)))
    directory = checkpoints_directory(run_dir)
    if not refused:
        raise NoCheckpointError(f"{directory}: there is no checkpoint")
    reasons = "".join(f"\n  {reason}" for _, reason in refused)
    raise NoCheckpointError(f"{directory}: none of the {len(refused)} checkpoints is valid:{reasons}")


def verify_checkpoint(path: Path) -> Manifest:
    """Check that every file is there, none is added, and each has the size and sha256 of the manifest.

    Needs constant memory and does not look inside the files; `load_checkpoint` does.

    Raises:
        CheckpointError: the message names the file and what is wrong with it.
    """
    manifest = read_manifest(path)
    for name, record in manifest.files.items():
        verify_file(path / name, record)
    return manifest


def load_checkpoint(path: Path, device: torch.device | str = "cpu") -> Checkpoint:
    """Load and fully check one checkpoint; its tensors come to ``device``.

    Needs memory for the tensors and, at times, once more for the larger of the two tensor files. The content
    is
    untrusted: no code in it can run, and no amount it claims is allocated before the real size of the file
        confirms it.

    Raises:
        CheckpointError: the message names the file and what is wrong with it.
    """
    manifest = read_manifest(path)

    def read(name: str) -> bytes:
        return read_verified(path / name, manifest.files[name])

    def read_tensors(name: str) -> dict[str, Tensor]:
        return {key: tensor.to(device) for key, tensor in decode_tensors(read(name), path / name).items()}

    # The small file first: a checkpoint that is refused is refused early.
    if manifest.files[STATE].size > MAX_JSON:
        raise CheckpointError(f"{path / STATE}: has more than the {MAX_JSON} bytes that are allowed")
    stored = parse_json(read(STATE), path / STATE)
    if not isinstance(stored, dict) or stored.keys() != {"step", "state"}:
        raise CheckpointError(f"{path / STATE}: is not the JSON object disttrain writes")
    if type(stored["step"]) is not int or stored["step"] != manifest.step:
        raise CheckpointError(
            f"{path / STATE}: is of step {str(stored['step'])[:40]}; the manifest says {manifest.step}"
        )
    state = unflatten(stored["state"], read_tensors(TENSORS), path / STATE)
    if not isinstance(state, dict):
        raise CheckpointError(f"{path / STATE}: is not the JSON object disttrain writes")
    return Checkpoint(manifest.step, read_tensors(MODEL), state)


def read_manifest(path: Path) -> Manifest:
    """Read the manifest and check names, kinds and sizes of all files, but not their content.

    Raises:
        CheckpointError: the message names the file and what is wrong with it.
    """
    sizes = _file_sizes(path)
    if MANIFEST not in sizes:
        raise CheckpointError(f"{path}: has no {MANIFEST}, so it is not a finished checkpoint")
    manifest = Manifest.parse(read_bounded(path / MANIFEST, MAX_JSON), path / MANIFEST)
    step = parse_step_name(path.name)
    if step is not None and step != manifest.step:
        raise CheckpointError(f"{path / MANIFEST}: is of step {manifest.step}, not of step {step}")
    del sizes[MANIFEST]
    for name in sorted(manifest.files.keys() | sizes.keys()):
        if name not in sizes:
            raise CheckpointError(f"{path / name}: is missing")
        if name not in manifest.files:
            raise CheckpointError(f"{path / name}: does not belong to the checkpoint; move it elsewhere")
        if sizes[name] != manifest.files[name].size:
            raise CheckpointError(
                f"{path / name}: has {sizes[name]} bytes; the manifest says {manifest.files[name].size}"
            )
    return manifest


def _file_sizes(path: Path) -> dict[str, int]:
    """Name and size in bytes of every file in a real directory that holds nothing but regular files."""
    sizes = {}
    try:
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            raise CheckpointError(f"{path}: is not a directory (a symbolic link to one is not followed)")
        with os.scandir(path) as entries:
            for entry in entries:
                if not entry.is_file(follow_symlinks=False):
                    raise CheckpointError(f"{path / entry.name}: is not a regular file")
                sizes[entry.name] = entry.stat(follow_symlinks=False).st_size
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error
    return sizes
