"""The pictures of a scaling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np

from disttrain.report.blocks import Picture, plain
from disttrain.report.chart import amount
from disttrain.report.svg import COLORS, drawn
from disttrain.scaling.record import ExchangeModel, Forecast, Interval, Mode, Scaling, Split
from disttrain.study.pictures import log_ticks, short
from disttrain.study.plots import GREY

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ABOUT = {"strong": "the global batch stays", "weak": "the batch of a rank stays"}


PARTS = tuple(field.name for field in fields(Split))
"""Of a step, in the order in which they are drawn."""


def throughput(scaling: Scaling, mode: Mode, key: str) -> Picture:
    """Samples a second beside the ideal line."""
    runs = scaling.of(mode)
    first = runs[0].samples_per_second.median / runs[0].ranks

    def draw(axes: Axes) -> None:
        ranks = [run.ranks for run in runs]
        axes.plot(ranks, [first * n for n in ranks], "--", color=GREY, lw=1.2, label="ideal")
        _bars(axes, ranks, [run.samples_per_second for run in runs], COLORS[0], "measured")
        axes.set_ylim(bottom=0)
        _over_ranks(axes, ranks, "samples per second")
        axes.legend(loc="upper left")

    said = "; ".join(f"{run.ranks} ranks {amount(run.samples_per_second.median)} samples a second" for run in runs)
    title = f"{mode.capitalize()} scaling: {_ABOUT[mode]}"
    return Picture(title, drawn(key, draw), plain(f"{title}. {said}."), note="Bars are intervals of 95 %.")


def split(scaling: Scaling, mode: Mode, key: str) -> Picture:
    """Where the time of an update goes, bar by bar."""
    runs = [(run.ranks, run.split) for run in scaling.of(mode) if run.split is not None]

    def draw(axes: Axes) -> None:
        places = np.arange(len(runs))
        below = np.zeros(len(runs))
        for name, color in zip(PARTS, (*COLORS[:6], GREY), strict=True):
            values = np.array([max(getattr(split, name), 0.0) * 1e3 for _, split in runs])
            axes.bar(places, values, 0.6, bottom=below, color=color)
            below += values
        axes.set_xticks(places, [str(ranks) for ranks, _ in runs])
        axes.set_xlabel("ranks")
        axes.set_ylabel("milliseconds of an update")
        axes.grid(True, axis="y")

    legend = tuple((name, f"c{i}" if i < 6 else "muted") for i, name in enumerate(PARTS))
    title = f"The step, {mode} scaling"
    said = "; ".join(
        f"{ranks} ranks: " + ", ".join(f"{n} {share(getattr(s, n), s)}" for n in PARTS) for ranks, s in runs
    )
    return Picture(title, drawn(key, draw), plain(f"{title}. {said}."), legend)


def exchange(model: ExchangeModel, key: str) -> Picture:
    """All-reduces by their bytes, beside the model."""
    groups = sorted(
        {(e.ranks, e.hosts, e.link_bits_per_second) for e in model.measured}, key=lambda g: (g[0], g[1], g[2] or 0)
    )

    links = {link for _, _, link in groups}  # the model is of one

    def seconds(ranks: int, sizes: Any) -> Any:
        return 2 * (ranks - 1) * model.alpha_seconds + 2 * (ranks - 1) / ranks * sizes * model.seconds_per_byte

    def draw(axes: Axes) -> None:
        for n, group in enumerate(groups):
            those = sorted(
                (e.bytes, e.seconds) for e in model.measured if (e.ranks, e.hosts, e.link_bits_per_second) == group
            )
            axes.plot([b for b, _ in those], [s for _, s in those], "o", ms=4, color=COLORS[n % len(COLORS)])
            if group[2] is None or len(links) == 1:
                sizes = (
                    np.geomspace(those[0][0], those[-1][0], 50)
                    if those[0][0] > 0
                    else np.array([float(b) for b, _ in those])
                )
                axes.plot(sizes, seconds(group[0], sizes), color=COLORS[n % len(COLORS)], lw=1.2)
        axes.set_xscale("log")
        axes.set_yscale("log")
        log_ticks(axes.xaxis)
        log_ticks(axes.yaxis)
        axes.set_xlabel("bytes")
        axes.set_ylabel("seconds of an all-reduce")
        axes.grid(True)

    legend = tuple((_group(*group), f"c{n % len(COLORS)}") for n, group in enumerate(groups))
    return Picture(
        "All-reduces",
        drawn(key, draw),
        plain(f"{len(model.measured)} all-reduces by their bytes, and the model fitted to them."),
        legend,
        note="Marks are measured; lines are the model.",
    )


def forecast(scaling: Scaling, mode: Mode, key: str) -> Picture:
    """What was measured, and what is expected beyond it."""
    runs, ahead = scaling.of(mode), forecasts(scaling, mode)
    first = runs[0].samples_per_second.median / runs[0].ranks

    def draw(axes: Axes) -> None:
        ranks = [run.ranks for run in runs] + [f.ranks for f in ahead]
        axes.plot(ranks, [first * n for n in ranks], "--", color=GREY, lw=1.2, label="ideal")
        _bars(axes, [r.ranks for r in runs], [r.samples_per_second for r in runs], COLORS[0], "measured")
        x = [f.ranks for f in ahead]
        axes.plot(
            x, [f.samples_per_second.median for f in ahead], ":", marker="o", ms=4, color=COLORS[1], label="forecast"
        )
        axes.fill_between(
            x,
            [f.samples_per_second.low for f in ahead],
            [f.samples_per_second.high for f in ahead],
            color=COLORS[1],
            alpha=0.18,
            lw=0,
        )
        axes.set_yscale("log")
        axes.set_xscale("log")
        _over_ranks(axes, ranks, "samples per second")
        axes.legend(loc="upper left")

    said = "; ".join(
        f"{f.ranks} ranks {amount(f.samples_per_second.median)} ({between(f.samples_per_second)})" for f in ahead
    )
    return Picture(
        f"Forecast, {mode} scaling",
        drawn(key, draw),
        plain(f"Forecast of samples a second: {said}."),
        note="The band is the forecast's interval; nothing in it was measured.",
    )


def forecasts(scaling: Scaling, mode: Mode) -> list[Forecast]:
    """Of a mode, by ranks."""
    return sorted((f for f in scaling.forecast if f.mode == mode), key=lambda f: f.ranks)


def between(interval: Interval) -> str:
    """The ends of an interval."""
    return f"{amount(interval.low)} to {amount(interval.high)}"


def share(seconds: float, split: Split) -> str:
    """Of a step, in percent."""
    return f"{100 * seconds / split.step:.3g} %" if split.step > 0 else "?"


def _bars(axes: Axes, x: Sequence[float], y: Sequence[Interval], color: str, label: str) -> None:
    middle = [each.median for each in y]
    ends = [[max(e.median - e.low, 0.0) for e in y], [max(e.high - e.median, 0.0) for e in y]]
    axes.errorbar(x, middle, ends, color=color, marker="o", ms=4, capsize=3, label=label)


def _over_ranks(axes: Axes, ranks: Sequence[int], y: str) -> None:
    from matplotlib.ticker import FuncFormatter

    axes.set_xticks(ranks, [str(n) for n in ranks])
    axes.minorticks_off()
    axes.set_xlabel("ranks")
    axes.set_ylabel(y)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    axes.grid(True)


def _group(ranks: int, hosts: int, link: float | None) -> str:
    where = f"{ranks} ranks" + (f" on {hosts} hosts" if hosts > 1 else "")
    return where + (f", {link / 1e9:g} Gbit/s" if link is not None else "")
