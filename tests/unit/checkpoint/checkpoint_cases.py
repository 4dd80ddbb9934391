"""A tiny checkpoint, how two are compared, how an attacker seals a changed one, and how it is refused."""

from __future__ import annotations

import hashlib
import json
import math
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from disttrain.checkpoint import Checkpoint, load_checkpoint
from disttrain.errors import CheckpointError


def make_checkpoint(step: int, seed: int = 0) -> Checkpoint:
    return Checkpoint(
        step=step,
        model={"w": torch.tensor([step + 0.5]), "n": torch.tensor(seed)},
        state={
            "optimizer": {
                "state": {0: {"m": torch.tensor([-float(step)])}},
                "param_groups": [{"lr": 0.1, "betas": (0.9, 0.99)}],
            },
            "samples": step * 8,
            "best": math.inf,
            "ranks": [{"draws": step}, {"draws": step + 1, "left": torch.tensor([0.5, step])}],
        },
    )


def same(a: Any, b: Any) -> bool:
    """Whether two nested values are equal to the bit, types and dtypes included."""
    if isinstance(a, torch.Tensor):
        if not isinstance(b, torch.Tensor) or a.dtype != b.dtype or a.shape != b.shape:
            return False
        return _bytes(a) == _bytes(b)
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return bool(a.keys() == b.keys()) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float):
        return bool(a.hex() == b.hex())
    return bool(a == b)


def _bytes(tensor: torch.Tensor) -> list[int]:
    values: list[int] = tensor.detach().resolve_conj().contiguous().flatten().view(torch.uint8).tolist()
    return values


def same_checkpoint(a: Checkpoint, b: Checkpoint) -> bool:
    return all(same(getattr(a, field), getattr(b, field)) for field in ("step", "model", "state"))


def read_manifest_json(path: Path) -> Any:
    return json.loads((path / "MANIFEST.json").read_bytes())


def write_manifest_json(path: Path, manifest: Any) -> None:
    text = json.dumps(manifest, sort_keys=True, indent=1, separators=(",", ": "))
    (path / "MANIFEST.json").write_text(text + "\n")


def reseal(path: Path) -> None:
    """Write the manifest anew, as an attacker would, so that it fits whatever the files hold now."""
    manifest = read_manifest_json(path)
    for name in manifest["files"]:
        data = (path / name).read_bytes()
        manifest["files"][name] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    write_manifest_json(path, manifest)


@contextmanager
def little_memory(extra: int = 512 * 2**20) -> Iterator[None]:
    """Let the address space grow by no more than ``extra`` bytes."""
    with open("/proc/self/statm") as statm:
        now = int(statm.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now + extra, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def refuse(saved: Path, message: str) -> None:
    """Loading it is refused in little memory, with one error."""
    with little_memory(), pytest.raises(CheckpointError, match=message):
        load_checkpoint(saved)
