"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from disttrain.errors import InputError

Engine = Annotated[
    str, typer.Option("--engine", help="auto (whatever launched us), ddp, horovod or local.", metavar="NAME")
]
Device = Annotated[str, typer.Option("--device", help="auto (CUDA where there is any), cpu or cuda.", metavar="NAME")]
RunDir = Annotated[Path, typer.Argument(help="A run directory.", metavar="RUN_DIR")]
Trust = Annotated[
    bool, typer.Option("--trust", help="Run the code outside disttrain that the recipe in the run directory names.")
]
Words = Annotated[
    list[str] | None,
    typer.Argument(
        help="A recipe file, then overrides such as optimizer.lr=0.1; without a recipe the built-in default.",
        metavar="[RECIPE.yaml] [KEY.PATH=VALUE ...]",
    ),
]


def recipe_and_overrides(words: list[str] | None) -> tuple[Path | None, list[str]]:
    """Split ``[RECIPE.yaml] [key=value ...]``.

    Raises:
        InputError: more than one recipe, or a recipe after an override.
    """
    words = words or []
    is_override = ["=" in word and not Path(word).exists() for word in words]
    recipes = [word for word, override in zip(words, is_override, strict=True) if not override]
    if len(recipes) > 1:
        raise InputError(
            f"{recipes[1]!r} is a second recipe: expected one RECIPE.yaml, then overrides written key.path=value"
        )
    overrides = [word for word, override in zip(words, is_override, strict=True) if override]
    return (Path(recipes[0]) if recipes else None), overrides
