"""``disttrain scale``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from disttrain.cli.options import Device, Words, recipe_and_overrides
from disttrain.errors import InputError

if TYPE_CHECKING:
    from disttrain.scaling.record import Mode, Scaling
    from disttrain.scaling.settings import Settings

Runs = Annotated[
    list[Path] | None,
    typer.Option(
        "--from",
        metavar="RUN_DIR",
        help="A run that was made elsewhere, in place of a recipe; once for each. Gives throughput, and no split.",
    ),
]
Out = Annotated[
    Path | None,
    typer.Option("--to", metavar="DIR", help="Directory of the scaling; default: scalings/NAME. It goes on there."),
]
Link = Annotated[
    str | None,
    typer.Option("--link", metavar="RATE", help="Of the network between the hosts, such as 100mbit or 25gbit."),
]
Hosts = Annotated[
    str,
    typer.Option("--hosts", metavar="A,B", help="Machines that share the ranks, reached by ssh; default: this one."),
]
Scaled = Annotated[
    str, typer.Option("--mode", help="weak (a rank's batch stays), strong (the global batch stays) or both.")
]
Windows = Annotated[int, typer.Option("--windows", help="Measured in each launch, of which medians are taken.")]


def scale(
    words: Words = None,
    ranks: Annotated[str, typer.Option("--ranks", help="Numbers of ranks, such as 1,2,4.")] = "1,2",
    hosts: Hosts = "",
    mode: Scaled = "both",
    engine: Annotated[str, typer.Option("--engine", help="Of several ranks: ddp, horovod or horovod-mpi.")] = "ddp",
    device: Device = "auto",
    link: Link = None,
    windows: Windows = 40,
    repeats: Annotated[int, typer.Option("--repeats", help="Launches of each number of ranks.")] = 3,
    seconds: Annotated[float, typer.Option("--seconds", help="Of a turn; a window has five.")] = 0.05,
    runs: Runs = None,
    to: Out = None,
    json: Annotated[bool, typer.Option("--json", help="Print scale.json and nothing else.")] = False,
) -> None:
    """Throughput against the number of ranks: how far it is from ideal, where the time of a step goes, and a forecast for more
    ranks. Interrupted and called again, it goes on."""
    from disttrain.scaling import plots
    from disttrain.scaling.settings import Settings

    modes = _modes(mode)
    if runs:
        if words:
            raise InputError(f"--from takes the place of a recipe: leave out {words[0]}")
        plots.require()
        _tell(*_elsewhere(runs, modes, to), json)
        return
    settings = Settings(
        ranks=_numbers(ranks),
        modes=modes,
        hosts=tuple(part.strip() for part in hosts.split(",") if part.strip()),
        link=None if link is None else _rate(link),
        engine=engine,
        device=device,
        windows=windows,
        repeats=repeats,
        seconds=seconds,
    )
    plots.require()
    _tell(*_measured(words, settings, to, sys.stderr if json else sys.stdout), json)


def _measured(words: list[str] | None, settings: Settings, to: Path | None, told: TextIO) -> tuple[Scaling, Path]:
    from disttrain.config import load_recipe
    from disttrain.scaling.scale import scale as measure

    recipe = load_recipe(*recipe_and_overrides(words))
    directory = to if to is not None else Path("scalings") / (recipe.name or "scaling")
    return measure(recipe, settings, directory, lambda line: print(line, file=told, flush=True)), directory


def _elsewhere(runs: list[Path], modes: tuple[Mode, ...], to: Path | None) -> tuple[Scaling, Path]:
    from disttrain.scaling.elsewhere import open_place, read_runs

    found = read_runs(runs, modes)
    directory = to if to is not None else Path("scalings") / found.name
    open_place(directory)
    return found, directory


def _tell(found: Scaling, directory: Path, json: bool) -> None:
    from disttrain.cli.console import print_table
    from disttrain.scaling import plots
    from disttrain.scaling.record import NAME, save
    from disttrain.scaling.words import PARTS, THROUGHPUT, parts, throughput

    save(found, directory)
    plots.draw(found, directory)
    if json:
        print((directory / NAME).read_text(encoding="utf-8"), end="")
        return
    print_table("throughput", THROUGHPUT, throughput(found))
    if split := list(parts(found)):
        print_table("where the time of a step goes", PARTS, split)
    for sentence in found.words:
        print(sentence)
    print(f"{NAME} and plots are in {directory}")


def _numbers(text: str) -> tuple[int, ...]:
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"--ranks {text!r}: expected numbers of ranks separated by commas, such as 1,2,4") from None
    return tuple(sorted(found))


def _modes(text: str) -> tuple[Mode, ...]:
    known: dict[str, tuple[Mode, ...]] = {"weak": ("weak",), "strong": ("strong",), "both": ("weak", "strong")}
    if text not in known:
        raise InputError(f"--mode {text!r}: expected weak, strong or both")
    return known[text]


def _rate(text: str) -> float:
    for unit, factor in (("gbit", 1e9), ("mbit", 1e6), ("kbit", 1e3)):
        number = text.lower().removesuffix(unit)
        if number != text.lower() and number.replace(".", "", 1).isdigit() and float(number) > 0:
            return float(number) * factor
    raise InputError(f"--link {text!r}: expected a rate such as 100mbit or 25gbit")
