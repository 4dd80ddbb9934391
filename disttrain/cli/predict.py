"""``disttrain predict``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from disttrain.cli.options import AtStep, Average, Best, Device, Engine, RunDir, Timeout, Trust, early, which_checkpoint
from disttrain.errors import InputError

What = Annotated[
    str, typer.Argument(help="train, validation or test; or a file: .npy, .jsonl, or images.", metavar="INPUT")
]
To = Annotated[Path, typer.Option("--to", help="Where to write: .jsonl or .npy.", metavar="FILE")]
Batch = Annotated[int, typer.Option("--batch", help="Samples at once on each rank.", min=1)]
Force = Annotated[bool, typer.Option("--force", help="Replace what --to names.")]


def predict(
    run_dir: RunDir,
    what: What,
    to: To,
    best: Best = False,
    checkpoint: AtStep = None,
    average: Average = None,
    batch: Batch = 256,
    force: Force = False,
    engine: Engine = "auto",
    device: Device = "auto",
    timeout: Timeout = None,
    trust: Trust = False,
) -> None:
    """Write what a trained model says of each sample of a set or a file, in order, from any number of ranks."""
    from disttrain.config import saved_recipe
    from disttrain.engine.environment import read_launch, time_limit
    from disttrain.inference.replacing import check_free

    if to.suffix not in (".jsonl", ".npy"):
        raise InputError(f"--to {to}: expected a file that ends in .jsonl or .npy")
    if to.is_dir():
        raise InputError(f"--to {to}: is a directory")
    which = which_checkpoint(best, checkpoint)
    launch, limit = read_launch(), time_limit(timeout)
    given = early(lambda: saved_recipe(run_dir, trust=trust), alone=launch.size == launch.local_size)

    from disttrain.cli.job import job
    from disttrain.engine.agreement import everyone, on_main
    from disttrain.inference.choice import Choice, Origin
    from disttrain.inference.inputs import Inputs, open_inputs
    from disttrain.inference.predict import predict as predictions
    from disttrain.inference.prepared import Prepared
    from disttrain.inference.replacing import replacing
    from disttrain.inference.rows import write
    from disttrain.inference.trained import load_trained
    from disttrain.telemetry import print_summary

    with job(launch, engine, device, limit) as (joined, _):

        def set_up() -> tuple[Prepared, Origin, Inputs]:
            on_main(joined, lambda: check_free(to, force=force))
            ready, origin = load_trained(on_main(joined, given), run_dir, joined, Choice(which, average))
            return ready, origin, everyone(joined, lambda: open_inputs(ready, what))

        ready, origin, inputs = everyone(joined, set_up)
        joined.phase = "predicting"
        found = predictions(ready, inputs, batch)
        if not joined.world.is_main:
            for _rows in found:  # rank 0 writes them
                pass
            return
        with replacing(to) as temporary:
            count = write(temporary, to.suffix, found, len(inputs), inputs.names)
        summary = {"samples": count, "file": str(to), **origin.about()}
        print_summary(summary, framed=joined.world.owns_terminal)
