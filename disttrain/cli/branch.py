"""``disttrain branch``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from disttrain.cli.options import RunDir, Trust
from disttrain.errors import InputError


def branch(
    run_dir: RunDir,
    batches: Annotated[
        str, typer.Option("--batches", help="Multiples of the run's batch, such as 2x,4x,8x.", metavar="Kx,Kx,...")
    ] = "2x,4x,8x",
    at: Annotated[
        str, typer.Option("--at", help="Checkpoints: newest, best, all, or updates.", metavar="WHICH")
    ] = "newest",
    length: Annotated[
        str | None,
        typer.Option(
            "--length",
            help="Of each branch: samples=N, 0.1epochs or 500updates; default: a twentieth of the run.",
            metavar="LENGTH",
        ),
    ] = None,
    law: Annotated[
        str, typer.Option("--law", help="Of the learning rate: linear, sqrt, none, or auto, the optimizer's own.")
    ] = "auto",
    margin: Annotated[float, typer.Option("--margin", help="How much higher a loss still counts as no worse.")] = 0.01,
    repeats: Annotated[int, typer.Option("--repeats", help="Of each branch, with other orders of the samples.")] = 3,
    ranks: Annotated[int, typer.Option("--ranks", help="Ranks of each branch, on this machine.")] = 1,
    engine: Annotated[str, typer.Option("--engine", help="Of several ranks: ddp, horovod or horovod-mpi.")] = "ddp",
    jobs: Annotated[int, typer.Option("--jobs", help="Branches at once.")] = 1,
    out: Annotated[
        Path | None, typer.Option("--out", help="Where the branches are kept; default: branches/ in RUN_DIR.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
    trust: Trust = False,
) -> None:
    """Measure the critical batch: from checkpoints of a run, short trainings at multiples of its batch, and the largest whose
    loss is no worse within a margin. Interrupted and run again, it goes on."""
    from disttrain.study.branch import Question
    from disttrain.study.branch import branch as run_branches

    question = Question(_factors(batches), at, length, law, margin, repeats, ranks, engine, jobs)
    answers = run_branches(
        run_dir, question, out, trust=trust, said=lambda line: print(line, flush=True) if not json else None
    )

    from disttrain.cli.console import print_table
    from disttrain.study.branch_report import as_json, headings, in_words, rows, write

    written = write(run_dir / "branches" if out is None else out, answers, question)
    if json:
        print(as_json(answers, question))
        return
    print_table("loss above that of the run's own batch", headings(answers), rows(answers))
    for answer in answers:
        print(in_words(answer, margin))
    print(
        "written:",
        ", ".join(map(str, written))
        + ("" if len(written) > 1 else '; for the picture: pip install "disttrain[report]"'),
    )


def _factors(text: str) -> tuple[int, ...]:
    found = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.endswith("x") and part[:-1].isdigit() for part in found):
        raise InputError(f"--batches {text}: expected multiples of the run's batch, each with an x, such as 2x,4x,8x")
    return tuple(int(part[:-1]) for part in found)
