"""Trainings in Python that share an engine: what one rank alone gets wrong is said by all, and the next is not out of step."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import disttrain
from disttrain.errors import DisttrainError


def attempt(engine: Any, run_dir: Path, lr: float, **more: Any) -> str:
    recipe = {
        "task": {"name": "digits"},
        "batch": {"global": 64},
        "updates": 2,
        "optimizer": {"name": "sgd", "lr": lr, **more},
        "evaluate": None,
        "log": {"sinks": []},
    }
    try:
        return f"made {disttrain.train(recipe, engine=engine, run_dir=run_dir, quiet=True).step} updates"
    except DisttrainError as error:
        return str(error)


def main(folder: Path) -> None:
    with disttrain.init() as engine:
        mine = engine.world.rank
        said = [
            attempt(engine, folder / "a", 0.1 if mine == 0 else 0.2),
            attempt(engine, folder / "b", 0.1, **({"momentun": 0.9} if mine == 1 else {})),
            attempt(engine, folder / "c", 0.1),
        ]
        # Said by all alike, or somebody hangs here.
        assert engine.all_gather_object(said) == [said, said]
        assert "the ranks disagree" in said[0], said
        assert "recipe optimizer.lr: 0.1 on rank 0; 0.2 on rank 1" in said[0], said
        assert said[1].startswith("rank 1: the recipe: optimizer.momentun: unknown key"), said
        assert said[2] == "made 2 updates", said


main(Path(sys.argv[1]))
