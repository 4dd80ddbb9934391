"""``disttrain study``."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from disttrain.cli.options import Words, recipe_and_overrides
from disttrain.errors import InputError

if TYPE_CHECKING:
    from disttrain.config import Recipe
    from disttrain.study.settings import Settings


Target = Annotated[
    str | None,
    typer.Option(
        "--target",
        metavar="METRIC=VALUE",
        help="Of the validation set; default: the loss that the recipe as it is reaches after half of its length.",
    ),
]
Budget = Annotated[
    int | None,
    typer.Option("--budget", metavar="SAMPLES", help="A run is given up then; default: 4 times the recipe."),
]
Every = Annotated[
    int | None,
    typer.Option("--every", metavar="SAMPLES", help="Between evaluations; default: a fortieth of the recipe."),
]
Out = Annotated[
    Path | None, typer.Option("--out", help="Directory of the study; default: studies/NAME. It goes on there.")
]


def study(
    words: Words = None,
    batches: Annotated[str, typer.Option("--batches", help="Global batches to compare, such as 64,256,1024.")] = "",
    target: Target = None,
    rates: Annotated[int, typer.Option("--rates", help="Most learning rates tried for a batch.")] = 7,
    seeds: Annotated[int, typer.Option("--seeds", help="Runs of each batch at its best rate.")] = 3,
    law: Annotated[str, typer.Option("--law", help="Where a search begins: linear, sqrt, none, or auto.")] = "auto",
    budget: Budget = None,
    every: Every = None,
    jobs: Annotated[int, typer.Option("--jobs", help="Runs at once.")] = 1,
    ranks: Annotated[int, typer.Option("--ranks", help="Processes of each run, on this machine.")] = 1,
    engine: Annotated[str, typer.Option("--engine", help="Of several ranks: ddp, horovod or horovod-mpi.")] = "ddp",
    out: Out = None,
    sharpness: Annotated[
        bool,
        typer.Option("--sharpness", help="How sharp the minima are, and slices of the loss between and around them."),
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print study.json and nothing else.")] = False,
) -> None:
    """What the batch costs: updates, samples and time to a target on the validation set, each batch at its own best rate; the
    critical batch with its interval; accuracy and generalisation gap. Killed and called again, it goes on."""
    from disttrain.config import load_recipe
    from disttrain.study.goal import parse_target
    from disttrain.study.settings import Settings

    recipe = load_recipe(*recipe_and_overrides(words))
    metric, value = ("loss", None) if target is None else parse_target(target)
    settings = Settings(
        batches=_batches(batches),
        metric=metric,
        value=value,
        rates=rates,
        seeds=seeds,
        law=law,
        budget=budget,
        every=every,
        jobs=jobs,
        ranks=ranks,
        engine=engine,
    )
    _run(recipe, settings, out if out is not None else Path("studies") / (recipe.name or "study"), sharpness, json)


def _run(recipe: Recipe, settings: Settings, directory: Path, sharpness: bool, json: bool) -> None:
    from disttrain.cli.console import print_table  # only now is the input known to be good enough for the heavy imports
    from disttrain.study import minima, pictures, plots, report
    from disttrain.study.settings import study_lock
    from disttrain.study.study import study as run_study
    from disttrain.study.words import ended, of_trial, sentences

    pictures.require()
    if sharpness:
        minima.refuse_without(recipe)
    told = sys.stderr if json else sys.stdout

    def say(line: str) -> None:
        print(line, file=told, flush=True)

    found = run_study(
        recipe,
        settings,
        directory,
        done=lambda trial, outcome: say(f"  {of_trial(trial)}: {ended(outcome)}"),
        say=say,
    )
    with study_lock(directory):
        if sharpness:
            found = replace(found, minima=minima.measure(found.points, directory, say))
        report.write(found, directory, plots.draw(found, directory))
    if json:
        print((directory / "study.json").read_text(encoding="utf-8"), end="")
        return
    print_table(f"{found.goal}", report.headings(found), report.rows(found))
    for sentence in sentences(found):
        print(sentence)
    print(f"study.json, study.md and plots are in {directory}")


def _batches(text: str) -> tuple[int, ...]:
    try:
        found = sorted({int(part) for part in text.split(",") if part.strip()})
    except ValueError:
        found = [0]
    if not found or found[0] < 1:
        raise InputError(f"--batches {text!r}: expected global batches separated by commas, such as 64,256,1024")
    return tuple(found)
