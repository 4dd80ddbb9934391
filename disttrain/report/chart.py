"""Curves over the length of a run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from disttrain.report.blocks import Picture, plain
from disttrain.report.svg import COLORS, drawn
from disttrain.study.pictures import log_ticks, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.ticker import Formatter, Locator

Floats = NDArray[np.float64]
MOST = 300
"""Points of a curve; of a longer one, each is the mean of several, with their least and largest as a band."""
DASHES = ("-", "--", ":")


@dataclass(frozen=True, slots=True)
class Curve:
    """A curve of a chart.

    Attributes:
        x, y: points, of which those that are not finite are left out.
        low, high: ends of a band, where there is one; an infinite end is the edge of the picture.
        color: number of its colour; colours repeat, and lines are then dashed.
        marked: with a mark at each point, as they are few.
    """

    label: str
    x: Floats
    y: Floats
    low: Floats | None = None
    high: Floats | None = None
    color: int = 0
    marked: bool = False


def chart(
    name: str,
    title: str,
    curves: Sequence[Curve],
    x_label: str,
    y_label: str,
    *,
    log: bool = False,
    zero: bool = False,
    note: str = "",
) -> Picture:
    """A picture of ``curves``.

    Args:
        name: of no other figure of the page.
        log: the y axis is logarithmic, as far as the values allow it.
        zero: the y axis begins at 0.
    """
    shown = [thin for curve in curves if len((thin := _thinned(_finite(curve))).x)]
    log = log and all((curve.y > 0).all() for curve in shown)

    def draw(axes: Axes) -> None:
        for curve in shown:
            _plot(axes, curve)
        if log:
            axes.set_yscale("log")
        if zero:
            axes.set_ylim(bottom=0)
        axes.set_xlabel(x_label)
        axes.set_ylabel(plain(y_label))
        axes.grid(True)
        axes.xaxis.set_major_locator(_ticks())
        axes.xaxis.set_major_formatter(_engineering())
        _label_y(axes, log=log)

    legend = tuple((plain(curve.label), color_class(curve.color)) for curve in shown) if len(shown) > 1 else ()
    thinned = any(curve.low is None for curve in curves) and any(len(c.x) > MOST for c in curves)
    notes = [note, "Points are means of several lines; the band is their least and largest."] if thinned else [note]
    return Picture(plain(title), drawn(name, draw), _said(title, shown, x_label), legend, " ".join(filter(None, notes)))


def color_class(number: int) -> str:
    """Of a line in the legend."""
    dash = ("", " dashed", " dotted")[number // len(COLORS) % len(DASHES)]
    return f"c{number % len(COLORS)}{dash}"


def amount(value: float) -> str:
    """A number for people: four digits, thousands apart; very large and very small ones with an exponent."""
    if not math.isfinite(value):
        return str(value)
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        return f"{value:.4g}"
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e12 else f"{value:.3g}"


def _plot(axes: Axes, curve: Curve) -> None:
    color = COLORS[curve.color % len(COLORS)]
    style = DASHES[curve.color // len(COLORS) % len(DASHES)]
    mark = {"marker": "o", "markersize": 3.5} if curve.marked or len(curve.x) == 1 else {}
    axes.plot(curve.x, curve.y, style, color=color, **mark)  # type: ignore[arg-type]
    if curve.low is not None and curve.high is not None and len(curve.x) > 1:
        bottom, top = axes.get_ylim()
        low, high = (
            np.where(np.isfinite(curve.low), curve.low, bottom),
            np.where(np.isfinite(curve.high), curve.high, top),
        )
        axes.fill_between(curve.x, low, high, color=color, alpha=0.18, linewidth=0)


def _finite(curve: Curve) -> Curve:
    kept = np.isfinite(curve.x) & np.isfinite(curve.y)
    ends = [None if end is None else end[kept] for end in (curve.low, curve.high)]
    return Curve(curve.label, curve.x[kept], curve.y[kept], ends[0], ends[1], curve.color, curve.marked)


def _thinned(curve: Curve) -> Curve:
    if len(curve.x) <= MOST:
        return curve
    starts = np.unique(np.linspace(0, len(curve.x), MOST + 1).astype(int))[:-1]
    counts = np.diff(np.append(starts, len(curve.x)))
    x, y = (np.add.reduceat(values, starts) / counts for values in (curve.x, curve.y))
    low = np.minimum.reduceat(curve.y if curve.low is None else curve.low, starts)
    high = np.maximum.reduceat(curve.y if curve.high is None else curve.high, starts)
    return Curve(curve.label, x, y, low, high, curve.color, curve.marked)


def _said(title: str, curves: Sequence[Curve], x_label: str) -> str:
    """What a picture shows, for who does not see it."""
    if not curves:
        return plain(f"{title}: nothing was recorded")
    each = [
        f"{curve.label}: from {amount(curve.y[0])} at {amount(curve.x[0])} to {amount(curve.y[-1])} at "
        f"{amount(curve.x[-1])}, between {amount(curve.y.min())} and {amount(curve.y.max())}"
        for curve in curves
    ]
    return plain(f"{title} over {x_label}. {'; '.join(each)}.")


def _ticks() -> Locator:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(5)


def _engineering() -> Formatter:
    from matplotlib.ticker import FuncFormatter

    return FuncFormatter(lambda value, _: short(value))


def _label_y(axes: Axes, *, log: bool) -> None:
    from matplotlib.ticker import MaxNLocator

    if log:
        log_ticks(axes.yaxis)
    else:
        axes.yaxis.set_major_formatter(_engineering())
        axes.yaxis.set_major_locator(MaxNLocator(5))
