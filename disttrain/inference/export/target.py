"""Where an exported model goes: which kind of file, and how it appears there whole or not at all. Imports no torch."""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from disttrain.errors import DisttrainError, InputError

KINDS = {
    ".safetensors": "the state dict, under the model's own names",
    ".pt2": "a program for torch.export.load",
    ".onnx": "for onnxruntime and others",
    "": "a directory, for a transformers model's from_pretrained",
}
PROGRAMS = (".pt2", ".onnx")
"""Those that hold the computation too, and so may compute with other weights."""
NOTES = "disttrain.json"
"""What is said of an exported model: a file beside it in a directory, and one within a ``.pt2``."""


def check_target(path: Path, *, quantize: str | None, force: bool) -> None:
    """Refuse a target before any work is done for it.

    Args:
        force: whether what is there may be replaced: a file, or a directory that was exported before.

    Raises:
        InputError: its ending is unknown, it is taken, it cannot be written, or it cannot hold quantised weights.
    """
    if path.suffix not in KINDS:
        known = ", ".join(f"{suffix or 'no ending'} ({what})" for suffix, what in KINDS.items())
        raise InputError(f"--to {path}: {path.suffix!r} is unknown; expected {known}")
    if quantize not in (None, "int8"):
        raise InputError(f"--quantize {quantize!r}: expected int8")
    if quantize is not None and path.suffix not in PROGRAMS:
        raise InputError(
            f"--quantize {quantize} --to {path}: a model class has no {quantize} weights to load them into; a program has: "
            f"expected {' or '.join(PROGRAMS)}"
        )
    if os.path.lexists(path):
        if not force:
            raise InputError(f"--to {path}: is there already; --force replaces it")
        is_directory = path.is_dir() and not path.is_symlink()
        if is_directory != (path.suffix == ""):
            raise InputError(f"--to {path}: is {'a' if is_directory else 'no'} directory, and is not replaced")
        if is_directory and not (path / NOTES).is_file():
            raise InputError(f"--to {path}: holds no exported model ({NOTES} is missing), so it is not replaced")
    if not path.parent.is_dir():
        raise InputError(f"--to {path}: there is no directory {path.parent}")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise InputError(f"--to {path}: {path.parent} is not writable")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside ``path`` to write to, whose file or directory then takes its place by a rename; after an error nothing has
    changed. A directory that is there is moved out of the way just before.

    Raises:
        DisttrainError: it cannot be written.
    """
    unique = uuid.uuid4().hex
    temporary, old = (path.with_name(f".{path.stem}-{word}-{unique}{path.suffix}") for word in ("new", "old"))
    try:
        yield temporary
        for file in [temporary, *temporary.rglob("*")]:
            _flush(file)
        if path.is_dir() and not path.is_symlink():
            os.rename(path, old)
        os.replace(temporary, path)
        _flush(path.parent)
    except OSError as error:
        raise DisttrainError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        _remove(temporary)
        _remove(old)


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a directory."""
    return sum(file.stat().st_size for file in [path, *path.rglob("*")] if file.is_file())


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    with contextlib.suppress(OSError):  # it was renamed, or never made
        path.unlink(missing_ok=True)
