"""The chapter on a scaling: throughput beside the ideal line, where the time of a step goes, the exchange, the forecast."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from disttrain.report.blocks import Chapter, Code, Part, Section, Verdict, Words, plain, sentence, table
from disttrain.report.chart import amount
from disttrain.report.scaling_figures import PARTS, between, exchange, forecast, forecasts, share, split, throughput
from disttrain.scaling.record import Forecast, Mode, ScaledRun, Scaling

if TYPE_CHECKING:
    pass

_MODES: tuple[Mode, ...] = ("strong", "weak")
UNEXPLAINED = 0.03
"""Share of a step that may be left over without a word."""


def chapter(scaling: Scaling, key: str) -> Chapter:
    """All that was measured, and what follows from it."""
    modes = [mode for mode in _MODES if len(scaling.of(mode)) > 1]
    speeds = [throughput(scaling, mode, f"{key}-{mode}") for mode in modes]
    splits = [split(scaling, mode, f"{key}-split-{mode}") for mode in modes if any(r.split for r in scaling.of(mode))]
    words = Words(tuple(sentence(plain(words)) for words in scaling.words))
    ahead: list[Part] = [
        forecast(scaling, mode, f"{key}-forecast-{mode}") for mode in modes if forecasts(scaling, mode)
    ]
    if scaling.forecast:
        ahead.append(
            table(
                "Forecast, not measured",
                ("mode", "ranks", "global batch", "samples a second", "95 %"),
                _rows(scaling.forecast),
            )
        )
    return Chapter(
        scaling.name,
        "scaling",
        Verdict(scaling.name, tuple(_said(scaling)), tuple(_unknown(scaling))),
        tuple(_facts(scaling)),
        (
            Section("Throughput", (*speeds, _measured(scaling))),
            Section("Where the time of a step goes", (*splits, *_shares(scaling))),
            Section("Found", (words,) if scaling.words else ()),
            Section("Exchange", tuple(_exchange(scaling, f"{key}-exchange"))),
            Section("Forecast", tuple(ahead)),
            Section("Environment", (table("What it ran on", ("what", "is"), list(scaling.environment.items())),)),
            Section("Recipe", (Code("recipe, resolved", plain(_yaml(scaling.recipe))),)),
        ),
    )


def _said(scaling: Scaling) -> Iterator[str]:
    split = False
    for mode in _MODES:
        runs = scaling.of(mode)
        if len(runs) < 2:
            continue
        first, last = runs[0], runs[-1]
        times = last.samples_per_second.median / first.samples_per_second.median
        low, high = _faster(first, last)
        ideal = 100 * times / (last.ranks / first.ranks)
        yield (
            f"{mode} scaling: {last.ranks} ranks are {times:.2g}x as fast as {first.ranks} ({low:.2g}x to {high:.2g}x), "
            f"{ideal:.0f} % of ideal"
        )
        if last.split is not None and last.split.step > 0 and not split:
            yield f"communication costs {share(last.split.exchange, last.split)} at {last.ranks} ranks"
            if last.split.stragglers > 0.02 * last.split.step:
                yield f"waiting for the slowest rank costs {share(last.split.stragglers, last.split)}"
            split = True


def _faster(first: ScaledRun, last: ScaledRun) -> tuple[float, float]:
    """How many times as fast ``last`` is, at least and at most: from the ends of both intervals that are farthest apart."""
    a, b = first.samples_per_second, last.samples_per_second
    return b.low / a.high, b.high / a.low


def _unknown(scaling: Scaling) -> Iterator[str]:
    crowded = [r for r in scaling.runs if r.cores is not None and r.cores < r.ranks]
    if crowded:
        ranks = ", ".join(str(n) for n in sorted({r.ranks for r in crowded}))
        yield f"what {ranks} ranks would do on a machine of their own: here they take turns on {crowded[0].cores} cores"
    for mode in _MODES:
        runs = scaling.of(mode)
        if len(runs) > 1 and _faster(runs[0], runs[-1])[0] < 1 < _faster(runs[0], runs[-1])[1]:
            yield f"whether {runs[-1].ranks} ranks are faster than {runs[0].ranks} at all ({mode}): the intervals overlap"
    splits = [r.split for r in scaling.runs if r.split is not None and r.split.step > 0]
    worst = max((abs(s.unexplained) / s.step for s in splits), default=0.0)
    if worst > UNEXPLAINED:
        yield f"where up to {100 * worst:.2g} % of a step goes: its parts, each measured by itself, do not add up to it"
    if any(r.split is None for r in scaling.runs):
        yield "where the time goes in runs of which throughput alone is known"
    if scaling.exchange is None:
        yield "how the exchange grows with ranks and bytes: it was not measured"
    if not scaling.forecast:
        yield "what a larger cluster would give: there is no forecast"
    else:
        yield f"whether the forecast for up to {max(f.ranks for f in scaling.forecast)} ranks holds: nothing of it was measured"


def _facts(scaling: Scaling) -> Iterator[tuple[str, str]]:
    most = max(scaling.runs, key=lambda run: run.ranks, default=None)
    if most is not None:
        yield f"samples a second at {most.ranks} ranks", f"{most.samples_per_second.median:,.0f}"
        yield "engine", plain(most.engine)
        yield "hosts", str(most.hosts)
    yield "exchanged in an update", f"{scaling.parameters_bytes / 1e6:,.3g} MB"


def _shares(scaling: Scaling) -> Iterator[Part]:
    rows = [
        (
            run.mode,
            run.ranks,
            f"{run.step_seconds.median * 1e3:,.3g} ms",
            *(share(getattr(run.split, name), run.split) for name in PARTS),
        )
        for mode in _MODES
        for run in scaling.of(mode)
        if run.split is not None
    ]
    if rows:
        yield table("Shares of a step", ("mode", "ranks", "step", *PARTS), rows)


def _measured(scaling: Scaling) -> Part:
    rows = []
    for mode in _MODES:
        runs = scaling.of(mode)
        for run in runs:
            speed = run.samples_per_second
            ideal = runs[0].samples_per_second.median / runs[0].ranks * run.ranks
            rows.append(
                (
                    mode,
                    run.ranks,
                    run.hosts,
                    run.engine,
                    f"{run.global_batch:,}",
                    amount(speed.median),
                    between(speed),
                    f"{100 * speed.median / ideal:.0f} %",
                )
            )
    return table(
        "Measured", ("mode", "ranks", "hosts", "engine", "global batch", "samples a second", "95 %", "of ideal"), rows
    )


def _exchange(scaling: Scaling, key: str) -> Iterator[Part]:
    model = scaling.exchange
    if model is None:
        return
    yield exchange(model, key)
    yield table(
        "The model: 2 (p - 1) alpha + 2 (p - 1) / p n beta for n bytes on p ranks",
        ("what", "is", "95 %"),
        [
            (
                "alpha, of a message",
                f"{model.alpha_seconds * 1e6:,.3g} us",
                f"{model.alpha_interval.low * 1e6:,.3g} to {model.alpha_interval.high * 1e6:,.3g} us",
            ),
            (
                "beta, of a gigabyte",
                f"{model.seconds_per_byte * 1e9:,.3g} s",
                f"{model.seconds_per_byte_interval.low * 1e9:,.3g} to {model.seconds_per_byte_interval.high * 1e9:,.3g} s",
            ),
            ("typical error of the model", f"{100 * model.error:.0f} %", ""),
        ],
    )


def _rows(forecasts: Sequence[Forecast]) -> list[tuple[object, ...]]:
    return [
        (f.mode, f.ranks, f"{f.global_batch:,}", amount(f.samples_per_second.median), between(f.samples_per_second))
        for f in forecasts
    ]


def _yaml(recipe: dict[str, Any]) -> str:
    import yaml

    return str(yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True))
