"""The pictures of a scaling: throughput against the ideal line, and where the time of a step goes. SVG files."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from disttrain.errors import InputError
from disttrain.scaling.record import Mode, Scaling
from disttrain.scaling.words import ideal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which are told apart with any kind of sight.
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#595959"
PARTS = {
    "compute": "#56B4E9",
    "data": "#F0E442",
    "exchange": "#D55E00",
    "stragglers": "#E69F00",
    "optimizer": "#009E73",
    "interpreter": "#CC79A7",
    "unexplained": "#999999",
}


def require() -> None:
    """See that pictures can be drawn, before anything is measured.

    Raises:
        InputError: matplotlib is not installed.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        raise InputError('a scaling draws its pictures with matplotlib: pip install "disttrain[report]"') from None


def draw(scaling: Scaling, directory: Path) -> list[str]:
    """Write ``plots/NAME.svg``; returns the names."""
    from matplotlib import rc_context

    place = directory / "plots"
    place.mkdir(exist_ok=True)
    found = figures(scaling)
    for name, figure in found.items():
        with rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):  # the same picture is the same file
            figure.savefig(place / f"{name}.svg", metadata={"Date": None, "Creator": None})
    return list(found)


def figures(scaling: Scaling) -> dict[str, Figure]:
    """By name; the split only where it is known."""
    from matplotlib.figure import Figure

    modes: list[Mode] = list(dict.fromkeys(run.mode for run in scaling.runs))
    made = {"throughput": Figure(figsize=(5.2 * len(modes), 4.2), layout="constrained")}
    for axes, mode in zip(made["throughput"].subplots(1, len(modes), squeeze=False)[0], modes, strict=True):
        _throughput(axes, scaling, mode)
    if any(run.split is not None for run in scaling.runs):
        made["split"] = Figure(figsize=(4.2 * len(modes) + 1.6, 4.2), layout="constrained")
        row = made["split"].subplots(1, len(modes), squeeze=False, sharey=True)[0]
        for axes, mode in zip(row, modes, strict=True):
            _split(axes, scaling, mode)
        handles, labels = row[0].get_legend_handles_labels()
        made["split"].legend(handles[::-1], labels[::-1], loc="outside right center")
    return made


def _throughput(axes: Axes, scaling: Scaling, mode: Mode) -> None:
    runs, made = scaling.of(mode), [f for f in scaling.forecast if f.mode == mode]
    numbers = [run.ranks for run in runs] + [f.ranks for f in made]
    axes.plot(numbers, [ideal(runs[0], n) for n in numbers], color=GREY, ls="--", lw=1, label="ideal")
    for points, color, label in ((runs, BLUE, "measured"), (made, ORANGE, "forecast")):
        speeds = [point.samples_per_second for point in points]
        if not points:
            continue
        spread = [[s.median - s.low for s in speeds], [s.high - s.median for s in speeds]]
        x = [point.ranks for point in points]
        style = "o-" if label == "measured" else "o:"
        axes.errorbar(x, [s.median for s in speeds], spread, fmt=style, color=color, ms=4, capsize=3, label=label)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(numbers, [str(n) for n in numbers])
    axes.minorticks_off()
    axes.set_xlabel("ranks")
    axes.set_ylabel("samples per second")
    axes.set_title(f"{mode} scaling")
    axes.grid(alpha=0.3)
    axes.legend()


def _split(axes: Axes, scaling: Scaling, mode: Mode) -> None:
    """Shares of a step, stacked; a negative one lies below zero."""
    runs = [run for run in scaling.of(mode) if run.split is not None]
    above, below = [0.0] * len(runs), [0.0] * len(runs)
    names = [str(run.ranks) for run in runs]
    for part, color in PARTS.items():
        shares = [asdict(run.split)[part] / run.split.step * 100 for run in runs if run.split is not None]
        bottoms = [b if share < 0 else a for a, b, share in zip(above, below, shares, strict=True)]
        axes.bar(names, shares, 0.6, bottom=bottoms, color=color, label=part)
        above = [a + max(share, 0.0) for a, share in zip(above, shares, strict=True)]
        below = [b + min(share, 0.0) for b, share in zip(below, shares, strict=True)]
    axes.axhline(0, color=GREY, lw=0.8)
    axes.set_xlabel("ranks")
    axes.set_ylabel("% of a step")
    axes.set_title(f"{mode} scaling")
