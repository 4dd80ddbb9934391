"""Where an exported model goes, and as which kind of file. Imports no torch."""

from __future__ import annotations

import os
from pathlib import Path

from disttrain.errors import InputError
from disttrain.inference.replacing import check_free

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
    check_free(path, force=force)
    if os.path.lexists(path):
        is_directory = path.is_dir() and not path.is_symlink()
        if is_directory != (path.suffix == ""):
            raise InputError(f"--to {path}: is {'a' if is_directory else 'no'} directory, and is not replaced")
        if is_directory and not (path / NOTES).is_file():
            raise InputError(f"--to {path}: holds no exported model ({NOTES} is missing), so it is not replaced")


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a directory."""
    return sum(file.stat().st_size for file in [path, *path.rglob("*")] if file.is_file())
