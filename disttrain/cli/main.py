"""The command line: ``disttrain COMMAND`` and ``python -m disttrain COMMAND``; no command means ``train``.

Each command imports what it needs when it runs, so that wrong input is refused before torch is loaded.
"""

from __future__ import annotations

import sys
from typing import Any

import typer

from disttrain.cli import (
    branch,
    data,
    diff,
    doctor,
    evaluate,
    export,
    noise,
    plan,
    predict,
    report,
    scale,
    schema,
    show,
    study,
    train,
    verify,
)
from disttrain.cli.failure import fail
from disttrain.cli.options import COMMANDS, check_command, with_resume_values
from disttrain.errors import DisttrainError

app = typer.Typer(
    name="disttrain",
    help="One recipe, any cluster: the same training run on any number of ranks, on torch DDP or Horovod.",
    no_args_is_help=False,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("train")(train.train)
app.command("evaluate")(evaluate.evaluate)
app.command("export")(export.export)
app.command("predict")(predict.predict)
app.command("noise")(noise.noise)
app.command("diff")(diff.diff)
app.command("show")(show.show)
app.command("verify")(verify.verify)
app.command("plan")(plan.plan)
app.command("branch")(branch.branch)
app.command("study")(study.study)
app.command("report")(report.report)
app.command("scale")(scale.scale)
app.command("schema")(schema.schema)
app.command("doctor")(doctor.doctor)
app.add_typer(data.app, name="data")

# Typer brings a copy of click in some versions and uses the package in others; this is the base of its usage errors.
_CLICK_ERROR: Any = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")


def main() -> None:
    """Entry point of the console script and of ``python -m disttrain``."""
    arguments = with_resume_values(sys.argv[1:])
    if not arguments or arguments[0] not in (*COMMANDS, "--help", "--version"):
        arguments = ["train", *arguments]
    if arguments[0] == "--version":
        from disttrain.version import __version__

        print(f"disttrain {__version__}")
        return
    try:
        check_command((sys.argv[1:] or ["train"])[0])
        # What a command does not return is the code of Typer's own exits: 130 after Control-C.
        code = app(arguments, prog_name="disttrain", standalone_mode=False)
    except DisttrainError as error:
        fail(error)
    except typer.Abort:
        raise SystemExit(130) from None
    except _CLICK_ERROR as error:
        error.show()
        if arguments[0] in ("train", "verify") and type(error).__name__ == "NoSuchOption":
            # Everybody's first try is --lr 0.1 or --config FILE.
            print(
                "The recipe is a word by itself, and its keys are given as optimizer.lr=0.1, without dashes.",
                file=sys.stderr,
            )
        raise SystemExit(2) from None
    if code:
        raise SystemExit(code)
