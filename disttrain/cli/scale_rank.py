"""A rank of a launch of ``disttrain scale``: ``python -m disttrain.cli.scale_rank WHAT``. Not a command for people."""

from __future__ import annotations

import sys

from disttrain.cli.failure import fail
from disttrain.cli.job import job
from disttrain.engine.environment import read_launch, time_limit
from disttrain.errors import DisttrainError
from disttrain.scaling.launches import answer, understood
from disttrain.scaling.measure import measure


def main(word: str) -> None:
    """Measure what ``word`` says; rank 0 prints the result in one line."""
    try:
        recipe, asked, engine, device = understood(word)
        launch, limit = read_launch(), time_limit(None)
        with job(launch, engine, device, limit) as (joined, _):
            found = measure(recipe, joined, asked)
            if joined.world.is_main:
                print(answer(found), flush=True)
    except DisttrainError as error:
        fail(error)


if __name__ == "__main__":
    main(sys.argv[1])
