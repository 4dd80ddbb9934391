"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Literal, NoReturn, TypeVar

import typer

from disttrain.errors import DisttrainError, InputError

T = TypeVar("T")
COMMANDS = (
    "train",
    "evaluate",
    "export",
    "predict",
    "noise",
    "diff",
    "show",
    "verify",
    "branch",
    "study",
    "plan",
    "report",
    "scale",
    "schema",
    "doctor",
    "data",
)
Engine = Annotated[
    str, typer.Option("--engine", help="auto (whatever launched us), ddp, horovod or local.", metavar="NAME")
]
Device = Annotated[str, typer.Option("--device", help="auto (CUDA where there is any), cpu or cuda.", metavar="NAME")]
Timeout = Annotated[
    float | None,
    typer.Option(
        "--timeout",
        help="Seconds that ranks wait for each other before they give up; default: DISTTRAIN_TIMEOUT, or 600.",
        metavar="SECONDS",
    ),
]
RunDir = Annotated[Path, typer.Argument(help="A run directory.", metavar="RUN_DIR")]
Trust = Annotated[
    bool, typer.Option("--trust", help="Run the code outside disttrain that the recipe in the run directory names.")
]
Best = Annotated[
    bool, typer.Option("--best", help="Take the checkpoint whose metric was the best, instead of the newest.")
]
AtStep = Annotated[
    int | None, typer.Option("--checkpoint", help="Take the checkpoint of that update.", metavar="STEP", min=0)
]
Average = Annotated[
    bool | None,
    typer.Option(
        "--average/--no-average",
        help="Take the averaged weights, or those that were trained; default: averaged if the run keeps an average.",
        show_default=False,
    ),
]
Words = Annotated[
    list[str] | None,
    typer.Argument(
        help="A recipe file, then overrides such as optimizer.lr=0.1; without a recipe the built-in default.",
        metavar="[RECIPE.yaml] [KEY.PATH=VALUE ...]",
    ),
]


def recipe_and_overrides(words: list[str] | None) -> tuple[Path | None, list[str]]:
    """Split ``[RECIPE.yaml] [key=value ...]``.

    Raises:
        InputError: more than one recipe, or a recipe after an override.
    """
    words = words or []
    recipes = [word for word in words if "=" not in word or Path(word).exists()]
    if len(recipes) > 1:
        raise InputError(
            f"{recipes[1]!r} is a second recipe: expected one RECIPE.yaml, then overrides written key.path=value"
        )
    return (Path(recipes[0]) if recipes else None), [word for word in words if word not in recipes]


def which_checkpoint(best: bool, step: int | None) -> Literal["newest", "best"] | int:
    """The checkpoint that ``--best`` and ``--checkpoint STEP`` ask for.

    Raises:
        InputError: both are given.
    """
    if best and step is not None:
        raise InputError(f"--best and --checkpoint {step}: expected one of the two")
    if step is not None:
        return step
    return "best" if best else "newest"


def early(load: Callable[[], T], *, alone: bool) -> Callable[[], T]:
    """Load something before the job is joined, and return how to get it inside the gate of set-up.

    An error is raised at once if this machine is ``alone``, since all ranks then find the same; otherwise it is raised in
    the gate, because ranks elsewhere may not have it and would wait.
    """
    try:
        found = load()
    except DisttrainError as error:
        if alone:
            raise
        late = error

        def refuse() -> NoReturn:
            raise late

        return refuse
    return lambda: found


def with_resume_values(arguments: list[str]) -> list[str]:
    """``--resume`` may stand alone; only the word ``auto`` right after it is its value.

    Examples:
        >>> with_resume_values(["--resume", "auto", "a.yaml"]), with_resume_values(["--resume", "a.yaml"])
        (['--resume=auto', 'a.yaml'], ['--resume=must', 'a.yaml'])
    """
    found: list[str] = []
    for before, word in zip(["", *arguments], arguments, strict=False):
        if word == "--resume":
            found.append("--resume=must")
        elif before == "--resume" and word == "auto":
            found[-1] = "--resume=auto"
        else:
            found.append(word)
    return found


def resume_mode(word: str) -> Literal["no", "must", "auto"]:
    """The value of ``--resume``.

    Raises:
        InputError: it is another word.
    """
    match word:
        case "no" | "must" | "auto":
            return word
    raise InputError(f"--resume={word}: expected --resume or --resume auto")


def check_command(word: str) -> None:
    """Refuse a first word that is neither a command, nor an option, an override or a recipe file.

    Raises:
        InputError: with the command that was probably meant.
    """
    path = Path(word)
    if word in COMMANDS or word.startswith("-") or "=" in word or path.suffix or path.exists() or len(path.parts) > 1:
        return
    close = get_close_matches(word, COMMANDS, 1)
    hint = f"did you mean {close[0]}?" if close else f"expected {', '.join(COMMANDS)}, or a RECIPE.yaml to train"
    raise InputError(f"there is no command {word!r}; {hint}")
