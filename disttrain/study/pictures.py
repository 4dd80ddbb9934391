"""Figures of matplotlib, made and written in one place: the same figure is the same file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from disttrain.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure


def require() -> None:
    """See that pictures can be drawn, before hours are spent.

    Raises:
        InputError: matplotlib is not installed.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        raise InputError('pictures are drawn with matplotlib: pip install "disttrain[report]"') from None


def figure(width: float, height: float) -> Figure:
    """An empty one, in inches.

    Raises:
        InputError: matplotlib is not installed.
    """
    require()
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def write(made: Figure, path: Path) -> None:
    """As SVG, with text as text."""
    from matplotlib import rc_context

    with rc_context({"svg.hashsalt": "disttrain", "svg.fonttype": "none"}):
        made.savefig(path, format="svg", metadata={"Date": None, "Creator": None})


def log_ticks(axis: Axis) -> None:
    """Plain numbers along a logarithmic axis; where it spans few decades, which may hold no power of ten, at 2 and 5 too."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high / low < 100 else (1.0,), numticks=8))
    axis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    axis.set_minor_formatter(NullFormatter())


def short(value: float) -> str:
    """``25k``, ``1.5M``: as a number stands along an axis."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"
