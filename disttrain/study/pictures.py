"""Figures of matplotlib, made and written in one place: the same figure is the same file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from disttrain.errors import InputError

if TYPE_CHECKING:
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
