"""A scaling from its launches to what they say."""

from __future__ import annotations

import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from disttrain.config import Recipe
from disttrain.errors import InputError
from disttrain.scaling import forecast
from disttrain.scaling.exchange import fit_ring
from disttrain.scaling.launches import Found, Launch, run_launches
from disttrain.scaling.record import (
    Exchanged,
    ExchangeModel,
    Forecast,
    Mode,
    ScaledRun,
    Scaling,
    Split,
)
from disttrain.scaling.resample import DRAWS, around, drawn, interval
from disttrain.scaling.settings import FORECAST, Asked, Base, Settings, make_base, open_scaling
from disttrain.scaling.words import sentences
from disttrain.verify.hosts import check_hosts
from disttrain.version import __version__

NAMES = ("compute", "data", "exchange", "stragglers", "optimizer", "interpreter")
Window = Mapping[str, float]
FEWEST = 2
"""Samples of the smallest share that is measured: batch norm refuses a single one. A smaller one is taken for as long."""


@dataclass(frozen=True, slots=True)
class Group:
    """All launches of a mode on one number of ranks."""

    mode: Mode
    ranks: int
    launches: tuple[Found, ...]

    @property
    def windows(self) -> list[list[Window]]:
        return [found["windows"] for found in self.launches]

    @property
    def fits(self) -> bool:
        """Whether every rank has a core of its own."""
        return bool(self.ranks <= self.launches[0]["cores"] or self.launches[0]["device"] == "cuda")


def scale(recipe: Recipe, settings: Settings, directory: Path, say: Callable[[str], None]) -> Scaling:
    """Measure what has not been measured, and sum up.

    Args:
        directory: of the scaling; what each launch found is kept there.
        say: called with a line about what comes next.

    Raises:
        InputError: this cannot be run, or the directory holds another scaling.
        RankError: a launch failed; the same call goes on.
    """
    base = make_base(recipe, settings)
    check_hosts(settings.hosts)
    open_scaling(directory, recipe, settings)
    todo = planned(base, settings)
    kept: dict[tuple[Mode, int], list[Found]] = {}
    for launch, found in run_launches(todo, directory, settings, say):
        for mode in launch.modes:
            kept.setdefault((mode, launch.ranks), []).append(found)
    return summed_up(base, settings, [Group(*key, tuple(found)) for key, found in sorted(kept.items())])


def planned(base: Base, settings: Settings) -> list[Launch]:
    """Repeat by repeat, so that a machine that changes does so for all numbers of ranks."""
    shares = _shares(base, (base.least, *settings.ranks, *FORECAST)) if "strong" in settings.modes else {}
    found = []
    for repeat in range(settings.repeats):
        for ranks in sorted(settings.ranks):
            first = ranks == base.least
            for modes in [settings.modes] if first else [(mode,) for mode in settings.modes]:
                measured = {max(share, FEWEST) for share in shares.values()} if first else ()
                asked = Asked(settings.windows, settings.seconds, tuple(sorted(measured)))
                found.append(Launch(base.on(modes[0], ranks), modes, ranks, repeat, asked))
    return found


def _shares(base: Base, numbers: Sequence[int]) -> dict[int, int]:
    """The largest share of a rank in strong scaling, for those numbers of ranks that the batch can be divided among."""
    found = {}
    for ranks in numbers:
        try:
            found[ranks] = base.plan("strong", ranks).share[1] if ranks <= base.own.global_batch else 0
        except InputError:
            continue  # whole ghosts or micro-batches do not fit: no forecast for that many
    return {ranks: share for ranks, share in found.items() if share}


def summed_up(base: Base, settings: Settings, groups: Sequence[Group]) -> Scaling:
    """What the launches say together."""
    first = groups[0].launches[0]
    measured = exchanged([found for group in groups if group.fits for found in group.launches], settings.link)
    made = Scaling(
        name=base.recipe.name or "scaling",
        recipe=base.recipe.model_dump(by_alias=True, mode="json"),
        environment=environment(first, settings),
        parameters_bytes=first["parameters_bytes"],
        runs=tuple(_run(group, settings) for group in groups),
        exchange=_model(measured, settings.link),
        forecast=tuple(f for mode in settings.modes for f in _forecast(base, settings, mode, groups)),
    )
    return Scaling(
        **{name: getattr(made, name) for name in made.__slots__} | {"words": sentences(made, _again(groups))}
    )


def _again(groups: Sequence[Group]) -> float:
    """How far the same step differs from itself, measured before and after the other turns of a window."""
    windows = [window for group in groups for windows in group.windows for window in windows]
    return statistics.median(abs(window["after"] / window["before"] - 1) for window in windows)


def environment(first: Found, settings: Settings) -> dict[str, Any]:
    """The machine and the packages."""
    import torch

    return {
        "disttrain": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": platform.platform(terse=True),
        "device": first["device"],
        "cores": first["cores"],
        "hosts": max(len(settings.hosts), 1),
        "link_bits_per_second": settings.link,
        "launches": settings.repeats,
        "windows": settings.windows,
    }


def _run(group: Group, settings: Settings) -> ScaledRun:
    found = group.launches[0]
    batch = found["global_batch"]
    return ScaledRun(
        mode=group.mode,
        ranks=group.ranks,
        hosts=found["hosts"],
        engine=settings.engine,
        global_batch=batch,
        samples_per_second=interval(group.windows, lambda w: batch / _step(w)),
        step_seconds=interval(group.windows, _step),
        split=split(_flat(group.windows)),
        unexplained=interval(group.windows, lambda w: split(w).unexplained / _step(w)),
        cores=found["cores"],
    )


def _flat(launches: Sequence[Sequence[Window]]) -> list[Window]:
    return [window for windows in launches for window in windows]


def _step(windows: Sequence[Window]) -> float:
    return statistics.median(window["step"] for window in windows)


def split(windows: Sequence[Window]) -> Split:
    """The parts of a step: of each the median share of the step in its window, times the median step."""
    step = _step(windows)
    parts = {name: step * statistics.median(w[name] / w["step"] for w in windows) for name in NAMES}
    return Split(**parts, unexplained=step - sum(parts.values()))


def exchanged(launches: Sequence[Found], link: float | None) -> list[Exchanged]:
    """Every all-reduce that was measured, one of each window."""
    return [
        Exchanged(found["ranks"], found["hosts"], link if found["hosts"] > 1 else None, int(size), seconds)
        for found in launches
        for window in found["exchange"]
        for size, seconds in window.items()
    ]


def medians(measured: Sequence[Exchanged]) -> list[Exchanged]:
    """One for each number of ranks, link and size."""
    groups: dict[tuple[int, int, float | None, int], list[float]] = {}
    for m in measured:
        groups.setdefault((m.ranks, m.hosts, m.link_bits_per_second, m.bytes), []).append(m.seconds)
    return [Exchanged(*key, statistics.median(seconds)) for key, seconds in groups.items()]


def _model(measured: Sequence[Exchanged], link: float | None) -> ExchangeModel | None:
    points = medians(measured)
    ring = fit_ring(points)
    if ring is None:
        return None
    random = np.random.default_rng(0)
    draws = [
        fit_ring(medians([measured[i] for i in random.integers(len(measured), size=len(measured))]))
        for _ in range(DRAWS)
    ]
    rings = [draw for draw in draws if draw is not None]
    return ExchangeModel(
        alpha_seconds=ring.alpha,
        alpha_interval=around(ring.alpha, [r.alpha for r in rings]),
        seconds_per_byte=ring.per_byte(link),
        seconds_per_byte_interval=around(ring.per_byte(link), [r.per_byte(link) for r in rings]),
        measured=tuple(points),
        error=ring.error,
    )


def _forecast(base: Base, settings: Settings, mode: Mode, groups: Sequence[Group]) -> list[Forecast]:
    """For numbers of ranks beyond those that were measured with a core each."""
    chosen = [group for group in groups if group.mode == mode and group.fits]
    most = max((group.ranks for group in chosen), default=1)
    if most < 2:
        return []
    shares = _shares(base, (*(g.ranks for g in chosen), *FORECAST)) if mode == "strong" else {}
    wanted = [ranks for ranks in FORECAST if ranks > most and (mode == "weak" or ranks in shares)]
    random = np.random.default_rng(0)
    draws: dict[int, list[float]] = {ranks: [] for ranks in wanted}
    middle = _known(base, settings, chosen, shares, wanted, [_flat(g.windows) for g in chosen], None)
    for _ in range(DRAWS):
        windows = [drawn(group.windows, random) for group in chosen]
        known = _known(base, settings, chosen, shares, wanted, windows, random)
        unknown = forecast.Unknown(float(random.random()), float(random.standard_normal()))
        for ranks in wanted:
            draws[ranks].append(base.batch(mode, ranks) / forecast.seconds(known, ranks, unknown))
    return [
        Forecast(
            mode,
            ranks,
            batch := base.batch(mode, ranks),
            around(batch / forecast.seconds(middle, ranks, forecast.Unknown()), draws[ranks]),
        )
        for ranks in wanted
    ]


def _known(
    base: Base,
    settings: Settings,
    groups: Sequence[Group],
    shares: Mapping[int, int],
    wanted: Sequence[int],
    windows: Sequence[Sequence[Window]],
    random: np.random.Generator | None,
) -> forecast.Measured:
    """What is measured, or one draw of it."""
    exchanges = exchanged([found for group in groups for found in group.launches], settings.link)
    if random is not None:
        exchanges = [exchanges[i] for i in random.integers(len(exchanges), size=len(exchanges))]
    ring = fit_ring(medians(exchanges))
    assert ring is not None
    passes: dict[int, list[float]] = {}
    for found in groups[0].launches:
        for share, seconds in found["passes"].items():
            passes.setdefault(int(share), []).append(seconds)
    numbers = [*(group.ranks for group in groups), *wanted]
    return forecast.Measured(
        splits={group.ranks: split(w) for group, w in zip(groups, windows, strict=True)},
        buckets=groups[0].launches[0]["buckets"],
        shares=shares or dict.fromkeys(numbers, 1),
        passes={share: statistics.median(values) for share, values in passes.items()} if shares else {},
        ring=ring,
        link=settings.link,
    )
