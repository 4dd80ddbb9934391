"""``disttrain export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from disttrain.cli.options import AtStep, Average, Best, RunDir, Trust, which_checkpoint
from disttrain.errors import InputError

To = Annotated[
    Path,
    typer.Option(
        "--to",
        help="model.safetensors, model.pt2, model.onnx, or a directory for a transformers model.",
        metavar="PATH",
    ),
]
Quantize = Annotated[
    str | None, typer.Option("--quantize", help="int8: weights of linear layers, in .pt2 and .onnx.", metavar="KIND")
]
Force = Annotated[bool, typer.Option("--force", help="Replace what --to names.")]


def export(
    run_dir: RunDir,
    to: To,
    best: Best = False,
    checkpoint: AtStep = None,
    average: Average = None,
    quantize: Quantize = None,
    force: Force = False,
    trust: Trust = False,
) -> None:
    """Take a trained model out of a run: for plain torch, torch.export, ONNX or transformers. One process, on the CPU."""
    from disttrain.config import saved_recipe
    from disttrain.engine.environment import read_launch
    from disttrain.inference.export.target import check_target

    which, launch = which_checkpoint(best, checkpoint), read_launch()
    if launch.size > 1:
        raise InputError(
            f"export is one process, and {launch.launcher} started {launch.size}: start it without a launcher"
        )
    check_target(to, quantize=quantize, force=force)
    recipe = saved_recipe(run_dir, trust=trust)

    from disttrain.cli.job import job
    from disttrain.engine.agreement import everyone
    from disttrain.inference.choice import Choice
    from disttrain.inference.export.export import export as write
    from disttrain.inference.trained import load_trained
    from disttrain.telemetry import print_summary

    with job(launch, "local", "cpu") as (joined, _):
        ready, origin = everyone(joined, lambda: load_trained(recipe, run_dir, joined, Choice(which, average)))
        joined.phase = "exporting"
        found = everyone(joined, lambda: write(ready, origin, to, quantize=quantize))
        changed = {f"before_{quantize}_{name}": value for name, value in found.metrics_before.items()}
        print_summary(
            {
                **found.metrics,
                **(changed | {"quantized": found.quantized} if found.quantized else {}),
                "largest_difference": found.difference,
                "bytes": found.num_bytes,
                "file": str(to),
                **origin.about(),
            },
            framed=joined.world.owns_terminal,
        )
