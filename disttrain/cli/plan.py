"""``disttrain plan``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from disttrain.cli.options import Trust
from disttrain.errors import InputError

Places = Annotated[
    list[Path],
    typer.Argument(
        help="A run directory, or several of one recipe with other seeds; a study's directory; or a recipe.",
        metavar="RUN_DIR...|STUDY_DIR|RECIPE",
    ),
]
Scale = Annotated[
    Path | None,
    typer.Option("--scale", help="What disttrain scale left; default: throughput of the run or the study itself."),
]
Price = Annotated[float | None, typer.Option("--price", help="Of a GPU (a rank) for an hour.", metavar="PER_GPU_HOUR")]
Target = Annotated[
    str | None,
    typer.Option(
        "--target",
        metavar="METRIC=VALUE",
        help="Of the validation set; default: that of the study, or where the run came at its end.",
    ),
]


def plan(
    places: Places,
    scale: Scale = None,
    price: Price = None,
    ranks: Annotated[str, typer.Option("--ranks", help="That may be chosen, such as 1,2,4; default: all known.")] = "",
    batches: Annotated[str, typer.Option("--batches", help="That may be chosen; default: all known.")] = "",
    target: Target = None,
    law: Annotated[
        str,
        typer.Option("--law", help="Of the rate: linear, sqrt, none, or auto, the recipe's or the optimizer's own."),
    ] = "auto",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
    trust: Trust = False,
) -> None:
    """Which batch, how many ranks and which rate: from a measured noise scale, branches or a study, and from measured throughput;
    with reasons, time and price, or with why there is no telling. Trains nothing and writes nothing."""
    from disttrain.study.goal import parse_target

    wanted = None if target is None else parse_target(target)
    asked = (_numbers("--ranks", ranks), _numbers("--batches", batches))

    from disttrain.advice.advise import Question, advise
    from disttrain.advice.words import COST_HEADINGS, as_json, cost_rows, headings, rows, sentences
    from disttrain.cli.console import print_table
    from disttrain.telemetry.jsonl import to_line

    advice = advise(Question(tuple(places), scale, price, *asked, wanted, law), trust=trust)
    if json:
        print(to_line(as_json(advice)).rstrip())
        return
    answer, *reasons = sentences(advice)
    print(answer)
    if advice.front:
        print_table("the cheapest for each time, with intervals of 95 %", headings(advice), rows(advice))
    if costs := cost_rows(advice):
        print_table(f"what each batch takes to {advice.evidence.target}", COST_HEADINGS, costs)
    for reason in reasons:
        print(f"- {reason}")


def _numbers(option: str, text: str) -> tuple[int, ...]:
    try:
        return tuple(sorted({int(part) for part in text.split(",") if part.strip()}))
    except ValueError:
        raise InputError(f"{option} {text!r}: expected numbers separated by commas, such as 1,2,4") from None
