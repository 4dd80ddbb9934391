"""Callbacks for real ranks, and a program that trains from Python."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import disttrain
from disttrain.errors import DisttrainError
from disttrain.tasks.digits import Digits

RECIPE: dict[str, Any] = {
    "model": {"name": "mlp", "hidden": [16]},
    "batch": {"global": 64},
    "updates": 6,
    "optimizer": {"name": "sgd", "lr": 0.1},
    "evaluate": {"updates": 3},
    "precision": "fp64",
    "log": {"sinks": []},
}


class StopOnOne(disttrain.Callback):
    """Asks for a stop on the last rank alone."""

    every_rank = True

    def __init__(self, step: int) -> None:
        self.step = step

    def on_update(self, run: disttrain.RunView) -> None:
        if run.step == self.step and run.world.rank == run.world.size - 1:
            run.stop("enough, said one rank")


class FailOnOne(StopOnOne):
    def on_update(self, run: disttrain.RunView) -> None:
        if run.step == self.step and run.world.rank == run.world.size - 1:
            raise KeyError("what one rank lacks")


class FailOnMain(disttrain.Callback):
    def on_evaluation(self, run: disttrain.RunView) -> None:
        raise KeyError("what rank 0 lacks")


def main(out: Path, fail: bool) -> None:
    """Two runs and an evaluation on one engine, then what cannot be joined again, or is wrong on one rank alone."""
    with disttrain.init() as engine:
        given = [
            disttrain.train(RECIPE, task=Digits(), run_dir=out / f"{i}", engine=engine, quiet=True) for i in range(2)
        ]
        evaluated = disttrain.evaluate(out / "1", task=Digits(), engine=engine)
        rank, said = engine.world.rank, []
        for more in ({"engine": "auto"}, {"engine": engine, "callbacks": [FailOnOne(2)]} if fail else {"recipe": 3}):
            try:
                disttrain.train(**{"recipe": RECIPE, "task": Digits(), "run_dir": out / "4", "quiet": True, **more})
            except DisttrainError as error:
                said.append(f"{type(error).__name__}: {error}")
    found = {"metrics": [result.metrics for result in given], "evaluated": evaluated, "said": said}
    (out / f"rank-{rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), fail=sys.argv[2] == "fail")
