"""``disttrain train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from disttrain.cli.options import Device, Engine, Timeout, Trust, Words, early, recipe_and_overrides, resume_mode

Resume = Annotated[
    str,
    typer.Option(
        "--resume",
        metavar="[auto]",
        help="Continue a run from its newest checkpoint. With `auto`: if there is one, and else begin; right at every start.",
    ),
]
RunDir = Annotated[
    Path | None,
    typer.Option(
        "--run-dir", help="Where the run lives; default: a new directory below runs/, under --resume auto runs/NAME."
    ),
]


def train(
    words: Words = None,
    resume: Resume = "no",
    run_dir: RunDir = None,
    engine: Engine = "auto",
    device: Device = "auto",
    timeout: Timeout = None,
    trust: Trust = False,
) -> None:
    """Train a recipe; without one, the built-in default on data that comes with the installation."""
    from disttrain.config import load_recipe
    from disttrain.engine.environment import read_job, read_launch, time_limit

    path, overrides = recipe_and_overrides(words)
    mode = resume_mode(resume)
    from_run = path is None and mode != "no"
    launch, limit = read_launch(), time_limit(timeout)
    given = early(lambda: None if from_run else load_recipe(path, overrides), alone=launch.size == launch.local_size)

    # Only now is the input known to be good enough for the heavy imports.
    from disttrain.cli.job import job
    from disttrain.engine.agreement import everyone
    from disttrain.rundir.settle import Request
    from disttrain.telemetry import print_summary
    from disttrain.training.session import run_session

    with job(launch, engine, device, limit) as (joined, stop):
        request = Request(everyone(joined, given), overrides if from_run else [], mode, run_dir, read_job(), trust)
        metrics, about = run_session(request, joined, stop)
        if joined.world.is_main:
            print_summary({**metrics, **about}, framed=joined.world.owns_terminal)
