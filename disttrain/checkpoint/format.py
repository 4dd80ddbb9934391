"""What a checkpoint looks like on disk: names, and the manifest.

``run_dir/checkpoints/step-00001234/`` holds ``model.safetensors``, the weights by name; ``state.json``, all else a run
needs, whose tensors are in ``state.safetensors``; and ``MANIFEST.json``, which gives the size and the sha256 of each of
the others and is written last. Beside the checkpoints there may be hidden directories, left behind by a process that was
killed:

- ``.tmp-step-00001234-<uuid>``: was being written. Never read.
- ``.del-step-00001234-<uuid>``: was being deleted. Never read.
- ``.old-step-00001234-<uuid>``: was about to be replaced by a new save of the same step. It still counts as
  the checkpoint of that step for as long as there is no ``step-00001234``.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from disttrain.checkpoint.strict_json import dump_json, parse_json
from disttrain.errors import CheckpointError

FORMAT = "disttrain checkpoint"
VERSION = 2
MANIFEST = "MANIFEST.json"
MODEL = "model.safetensors"
TENSORS = "state.safetensors"
STATE = "state.json"
FILES = (MODEL, TENSORS, STATE)
MAX_STEP = 2**63 - 1

_STEP = re.compile(r"step-([0-9]{8,19})")
_HIDDEN = re.compile(r"\.(tmp|del|old)-(step-[0-9]{8,19})-[0-9a-f]{32}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """Everything a run needs to go on.

    Attributes:
        step: number of updates applied.
        model: ``model.state_dict()``; in a file of its own, for others to read.
        state: all else: dicts, lists and tuples of tensors and plain values, nested at will.
    """

    step: int
    model: Mapping[str, Tensor]
    state: dict[str, Any]


def checkpoints_directory(run_dir: Path) -> Path:
    return run_dir / "checkpoints"


def step_name(step: int) -> str:
    return f"step-{step:08d}"


def parse_step_name(name: str) -> int | None:
    """The step in ``step-00001234``; None for any other name."""
    match = _STEP.fullmatch(name)
    if match is None or step_name(int(match[1])) != name or int(match[1]) > MAX_STEP:
        return None
    return int(match[1])


def hidden_name(kind: str, step: int) -> str:
    """A fresh name for a directory that is no checkpoint (yet, or any more); ``kind`` is tmp, del or old."""
    return f".{kind}-{step_name(step)}-{uuid.uuid4().hex}"


def parse_hidden_name(name: str) -> tuple[str, int] | None:
    """Kind and step of a name made by `hidden_name`; None for any other name."""
    match = _HIDDEN.fullmatch(name)
    step = parse_step_name(match[2]) if match else None
    return (match[1], step) if match and step is not None else None


def list_checkpoints(run_dir: Path) -> dict[int, Path]:
    """The directory of each step, newest step first, good or damaged; empty when there is none.

    Raises:
        CheckpointError: the directory exists but cannot be listed.
    """
    directory = checkpoints_directory(run_dir)
    try:
        entries = sorted(directory.iterdir())
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise CheckpointError(f"{directory}: cannot be listed: {error.strerror}") from error
    found: dict[int, Path] = {}
    for path in entries:
        hidden = parse_hidden_name(path.name)
        if hidden is not None and hidden[0] == "old":
            found[hidden[1]] = path
    for path in entries:  # a visible checkpoint wins over the one it replaced
        step = parse_step_name(path.name)
        if step is not None:
            found[step] = path
    return dict(sorted(found.items(), reverse=True))


@dataclass(frozen=True, slots=True)
class FileRecord:
    """Size in bytes and sha256 (hexadecimal) of one file."""

    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """The content of ``MANIFEST.json``."""

    step: int
    files: dict[str, FileRecord]

    def to_bytes(self) -> bytes:
        files = {name: {"size": file.size, "sha256": file.sha256} for name, file in self.files.items()}
        return dump_json({"format": FORMAT, "version": VERSION, "step": self.step, "files": files}, indent=1)

    @classmethod
    def parse(cls, data: bytes, path: Path) -> Manifest:
        """The manifest in ``data``, which was read from ``path``.

        Raises:
            CheckpointError: not a manifest, of another version, or a single byte other than `to_bytes`
                writes it.
        """
        value = parse_json(data, path)
        if not isinstance(value, dict) or value.get("format") != FORMAT:
            raise CheckpointError(f"{path}: not the manifest of a {FORMAT}")
        version = value.get("version")
        if type(version) is not int or version != VERSION:
            wrote = "which disttrain 0.1 wrote" if version == 1 else "which another disttrain wrote"
            raise CheckpointError(
                f"{path}: has format version {str(version)[:40]}, {wrote}; this one reads version {VERSION}: go on with "
                f"the disttrain that wrote it, or take its weights from {MODEL}"
            )
        if value.keys() != {"format", "version", "step", "files"}:
            raise CheckpointError(f"{path}: must have the keys format, version, step and files, and no more")
        step, files = value["step"], value["files"]
        if type(step) is not int or not 0 <= step <= MAX_STEP:
            raise CheckpointError(f"{path}: step {str(step)[:40]} is not a number of updates")
        if not isinstance(files, dict):
            raise CheckpointError(f"{path}: files is not an object")
        # Checking the whole set of names, not each name, leaves no room for "..", "/" or anything unforeseen.
        if files.keys() != set(FILES):
            odd = min(files.keys() ^ set(FILES))
            raise CheckpointError(
                f"{path}: {odd[:100]!r} is {'unexpected' if odd in files else 'missing'} in the list of files"
            )
        manifest = cls(step, {name: _file_record(name, entry, path) for name, entry in files.items()})
        if manifest.to_bytes() != data:
            raise CheckpointError(f"{path}: was changed after disttrain wrote it")
        return manifest


def _file_record(name: str, entry: Any, path: Path) -> FileRecord:
    if isinstance(entry, dict) and entry.keys() == {"size", "sha256"}:
        size, sha256 = entry["size"], entry["sha256"]
        if type(size) is int and 0 <= size < 2**63 and isinstance(sha256, str) and _SHA256.fullmatch(sha256):
            return FileRecord(size, sha256)
    raise CheckpointError(f"{path}: {name} needs a size in bytes and a sha256, and no more")
