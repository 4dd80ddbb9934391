"""The launches of a scaling: each one process group, which measures and is gone. What it found is kept in a file of its own."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from disttrain.config import Recipe, check_recipe
from disttrain.engine.stop import StopRequest, stop_request
from disttrain.errors import RankError
from disttrain.rundir.rundir import replace_file
from disttrain.rundir.written import read_json
from disttrain.scaling.record import Mode
from disttrain.scaling.settings import LAUNCHES, Asked, Settings
from disttrain.verify.spawn import run_ranks

MARK = "disttrain-scale:"
"""Before the result in a rank's output."""
HOURS = 6 * 3600.0
"""Seconds that a launch may take."""


@dataclass(frozen=True, slots=True)
class Launch:
    """One process group.

    Attributes:
        recipe: with the batch of this number of ranks.
        modes: that it counts for; one rank is the same in both.
        repeat: from 0.
    """

    recipe: Recipe
    modes: tuple[Mode, ...]
    ranks: int
    repeat: int
    asked: Asked

    @property
    def name(self) -> str:
        return f"{'-'.join(self.modes)}-{self.ranks}-{self.repeat}"


Found = dict[str, Any]
"""What :func:`disttrain.scaling.measure.measure` returns, as plain data."""


def said(recipe: Recipe, asked: Asked, engine: str, device: str) -> str:
    """What a rank is told, as one word that no shell changes."""
    data = {"recipe": recipe.model_dump(by_alias=True, mode="json"), "asked": asdict(asked), "how": [engine, device]}
    return base64.urlsafe_b64encode(zlib.compress(json.dumps(data).encode())).decode()


def understood(word: str) -> tuple[Recipe, Asked, str, str]:
    """The inverse of :func:`said`."""
    data = json.loads(zlib.decompress(base64.urlsafe_b64decode(word)))
    asked = data["asked"]
    return check_recipe(data["recipe"]), Asked(**asked | {"shares": tuple(asked["shares"])}), *data["how"]


def answer(found: Found) -> str:
    """What rank 0 says."""
    return MARK + json.dumps(found)


def heard(log: str) -> Found:
    """The result in the output of a launch.

    Raises:
        RankError: there is none.
    """
    for line in log.splitlines():
        _, mark, text = line.partition(MARK)
        if mark:
            found: Found = json.loads(text)
            return found
    raise RankError("the ranks ended without a result:\n" + log[-2000:])


def run_launches(
    todo: list[Launch], directory: Path, settings: Settings, say: Callable[[str], None]
) -> Iterator[tuple[Launch, Found]]:
    """The results of all launches, in order; only those are started that have none yet.

    Raises:
        StopRequested: on a signal; the launch that was under way is made anew by the next call.
        InputError, RankError: a launch failed; what was measured before is kept.
    """
    with stop_request() as stop:
        for launch in todo:
            yield launch, _kept(launch, directory, settings, say, stop)


def _kept(launch: Launch, directory: Path, settings: Settings, say: Callable[[str], None], stop: StopRequest) -> Found:
    path = directory / LAUNCHES / f"{launch.name}.json"
    if not path.is_file():
        number = f"{launch.ranks} rank{'s' * (launch.ranks > 1)}"
        say(f"  {' and '.join(launch.modes)} scaling on {number}, {launch.repeat + 1} of {settings.repeats}")
        path.parent.mkdir(exist_ok=True)
        replace_file(path, json.dumps(_run(launch, path.with_suffix(""), settings, stop)) + "\n")
    found: Found = read_json(path, "delete it, and it is measured anew")
    return found


def _run(launch: Launch, log_dir: Path, settings: Settings, stop: StopRequest) -> Found:
    engine = "local" if launch.ranks == 1 else settings.engine
    word = said(launch.recipe, launch.asked, engine.removesuffix("-mpi"), settings.device)
    hosts = settings.hosts if launch.ranks > 1 else settings.hosts[:1]
    run_ranks(
        [word],
        launch.ranks,
        engine,
        log_dir=log_dir,
        timeout_seconds=HOURS,
        module="disttrain.cli.scale_rank",
        hosts=hosts,
        stop=lambda: bool(stop),
    )
    return heard((log_dir / "process-0.log").read_text(encoding="utf-8", errors="replace"))
