"""``disttrain noise``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from disttrain.cli.options import AtStep, Average, Best, Device, RunDir, Trust, which_checkpoint
from disttrain.errors import InputError

if TYPE_CHECKING:
    from disttrain.study.noise import NoiseAtCheckpoint

Part = Annotated[
    str, typer.Option("--set", help="train, or validation: the held-out noise scale.", metavar="train|validation")
]
Batch = Annotated[
    int | None, typer.Option("--batch", help="The batch to speak of; default: the recipe's global batch.", min=1)
]
Slice = Annotated[
    int, typer.Option("--slice", help="Samples whose mean gradient is compared; less is slower, more precise.", min=1)
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")]


def noise(
    run_dir: RunDir,
    part: Part = "train",
    best: Best = False,
    checkpoint: AtStep = None,
    average: Average = False,
    batch: Batch = None,
    slice: Slice = 32,
    json: Json = False,
    device: Device = "auto",
    trust: Trust = False,
) -> None:
    """Measure the gradient noise scale at a checkpoint, over a whole set with weights that stand still. One process."""
    from disttrain.config import saved_recipe
    from disttrain.engine.environment import read_launch

    which_set = _which_set(part)
    which, launch = which_checkpoint(best, checkpoint), read_launch()
    if launch.size > 1:
        raise InputError(
            f"noise is one process, and {launch.launcher} started {launch.size}: start it without a launcher"
        )
    recipe = saved_recipe(run_dir, trust=trust)

    from disttrain.cli.job import job
    from disttrain.engine.agreement import everyone
    from disttrain.inference.choice import Choice
    from disttrain.study.noise import noise_at
    from disttrain.telemetry import print_summary
    from disttrain.telemetry.jsonl import to_line

    with job(launch, "local", device) as (joined, _):
        joined.phase = "measuring"
        chosen = Choice(which, average)
        found = everyone(
            joined,
            lambda: noise_at(recipe, run_dir, joined, chosen, which_set, batch=batch, slice=slice, said=_tell),
        )
        estimate = found.estimate
        if json:
            about = {"of": found.name, "set": part, "batch": found.batch, "words": found.words}
            print(to_line({**about, **_numbers(found), **found.origin.about()}).rstrip())
            return
        print(found.words)
        print_summary(
            {
                "of": f"the {part} set, {found.samples:,} samples in slices of {found.slice}",
                "|G|^2": estimate.square_norm,
            }
            | {"tr(Sigma)": estimate.trace, **found.origin.about()},
            framed=joined.world.owns_terminal,
        )


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _numbers(found: NoiseAtCheckpoint) -> dict[str, Any]:
    """For programs."""
    estimate = found.estimate
    return {
        "value": estimate.value,
        "low": estimate.low,
        "high": estimate.high,
        "level": estimate.level,
        "reason": estimate.reason,
        "square_norm": estimate.square_norm,
        "trace": estimate.trace,
        "samples": found.samples,
        "slice": found.slice,
    }


def _which_set(word: str) -> Literal["train", "validation"]:
    match word:
        case "train" | "validation":
            return word
    raise InputError(f"--set {word!r}: expected train or validation")
