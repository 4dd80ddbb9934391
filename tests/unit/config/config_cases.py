"""A small recipe that is right, and how to see what is wrong with a changed one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from disttrain.config import Recipe, RecipeError, load_recipe

COUNT = "a whole number from 1 to 1000000000"
RATE = "a number greater than 0"
GOOD = """\
name: small
task: {name: digits}
batch: {global: 64}
epochs: 2
optimizer: {name: sgd, lr: 0.1}
"""


def changed(old: str, new: str) -> str:
    """``GOOD`` with one part replaced."""
    assert GOOD.count(old) == 1
    return GOOD.replace(old, new)


def load(folder: Path, text: str | bytes, overrides: Sequence[str] = ()) -> Recipe:
    path = folder / "r.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_recipe(path, overrides)


def mistakes(folder: Path, text: str | bytes, overrides: Sequence[str] = ()) -> list[str]:
    """The lines of the error, without the folder; empty for a recipe that is right."""
    try:
        load(folder, text, overrides)
    except RecipeError as error:
        return [line.replace(f"{folder}/", "") for line in str(error).splitlines()]
    return []
