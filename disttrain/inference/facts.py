"""What must be the same on every rank before the first update, and is compared by :func:`require_agreement`."""

from __future__ import annotations

import hashlib
import platform
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy
import torch

from disttrain.config import Recipe, flatten
from disttrain.tasks.base import Task
from disttrain.version import __version__


def facts(recipe: Recipe, task: Task) -> dict[str, dict[str, Any]]:
    """Recipe, code, package versions and data of this rank, by topic and key."""
    return {
        "recipe": flatten(recipe),
        "code": {"disttrain": code_digest(), **_task_code(task)},
        "package": {
            "disttrain": __version__,
            "torch": torch.__version__,
            "numpy": numpy.__version__,
            "python": platform.python_version(),
        },
        "dataset": {"fingerprint": task.fingerprint(), "sizes": str(task.sizes())},
    }


@cache
def code_digest() -> str:
    """sha256 over every source file of this package, first 16 hex digits."""
    digest = hashlib.sha256()
    root = Path(__file__).resolve().parents[1]
    for path in sorted(root.rglob("*.py")):
        digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def _task_code(task: Task) -> dict[str, str]:
    """The file of a task that is not ours."""
    module = type(task).__module__
    source = getattr(sys.modules.get(module), "__file__", None)
    if module.startswith("disttrain.") or source is None:
        return {}
    return {module: hashlib.sha256(Path(source).read_bytes()).hexdigest()[:16]}
