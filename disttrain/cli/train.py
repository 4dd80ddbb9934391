"""``disttrain train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from disttrain.cli.options import Device, Engine, Trust, Words, recipe_and_overrides


def train(
    words: Words = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue a run from its newest checkpoint.")] = False,
    run_dir: Annotated[
        Path | None, typer.Option("--run-dir", help="Where the run lives; default: a new one below runs/.")
    ] = None,
    engine: Engine = "auto",
    device: Device = "auto",
    trust: Trust = False,
) -> None:
    """Train a recipe; without one, the built-in default on data that comes with the installation."""
    from disttrain.config import load_recipe
    from disttrain.engine.environment import read_launch

    path, overrides = recipe_and_overrides(words)
    from_run = resume and path is None
    recipe = None if from_run else load_recipe(path, overrides)
    launch = read_launch()

    # Only now is the input known to be good enough for the heavy imports.
    from disttrain.cli.job import job
    from disttrain.telemetry import print_summary
    from disttrain.training.session import Request, run_session

    with job(launch, engine, device) as (joined, stop):
        summary = run_session(Request(recipe, overrides if from_run else [], resume, run_dir, trust), joined, stop)
        if joined.world.is_main:
            print_summary(summary, framed=joined.world.owns_terminal)
