"""The pictures of a study: SVG files, and the same in TensorBoard."""

from __future__ import annotations

import logging
import shutil
import statistics
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from disttrain.study import pictures
from disttrain.study.landscape import picture
from disttrain.study.shown import Shown, shown
from disttrain.study.study import Found, Point
from disttrain.study.words import fit_points, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

logger = logging.getLogger("disttrain")
# Okabe and Ito's colours, which are told apart with any kind of sight.
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#595959"
# From small to large, as matplotlib's viridis.
RAMP = ("#440154", "#472d7b", "#3b528b", "#2c728e", "#21918c", "#28ae80", "#5ec962", "#addc30")
Draw = Callable[["Axes"], None]


def draw(found: Found, directory: Path) -> list[str]:
    """Write ``plots/NAME.svg`` and ``tensorboard/``; returns the names."""
    seen = shown(found)
    figures = dict(_figures(seen))
    place = directory / "plots"
    place.mkdir(exist_ok=True)
    for name, figure in figures.items():
        pictures.write(figure, place / f"{name}.svg")
    _to_tensorboard(seen, figures, directory / "tensorboard")
    return list(figures)


def parts(found: Shown) -> dict[str, list[Draw]]:
    """What each picture is put together from, side by side, by its name."""
    made: dict[str, list[Draw]] = {}
    if points := fit_points(found.points):
        made["cost"] = [
            lambda axes: _cost(axes, found, points, "samples", 0),
            lambda axes: _cost(axes, found, points, "updates", 1),
        ]
        made["front"] = [lambda axes: _front(axes, found, points)]
    if any(point.final("validation_accuracy") for point in found.points):
        made["generalisation"] = [lambda axes: _accuracy(axes, found), lambda axes: _gap(axes, found)]
    made["curves"] = [lambda axes: _curves(axes, found, "samples"), lambda axes: _curves(axes, found, "updates")]
    if found.minima.found:
        made["sharpness"] = [lambda axes: _sharpness(axes, found)]
    return made


def _figures(found: Shown) -> Iterator[tuple[str, Figure]]:
    for name, draws in parts(found).items():
        figure = pictures.figure(5 * len(draws), 4)
        row = figure.subplots(1, len(draws), sharey=name == "curves", squeeze=False)[0]
        for draw_one, axes in zip(draws, row, strict=True):
            draw_one(axes)
        yield name, figure
    yield from ((name, picture(each)) for name, each in found.minima.slices)


def _cost(axes: Axes, found: Shown, points: list[Point], what: str, power: int) -> None:
    """Samples or updates (samples over ``batch ** power``) to the target against the batch."""
    x = [p.batch for p in points for _ in p.samples]
    y = [samples / p.batch**power for p in points for samples in p.samples]
    axes.scatter(x, y, s=22, color=BLUE, zorder=3, label="one run")
    fit = found.fit
    if fit is not None:
        b, low, high = (np.asarray(column) for column in zip(*fit.band, strict=True))
        style = "-" if fit.fits else ":"
        label = "hyperbola" if fit.fits else "hyperbola, which does not fit"
        axes.plot(b, np.asarray([fit.samples(v) for v in b]) / b**power, style, color=ORANGE, label=label)
        axes.fill_between(b, low / b**power, high / b**power, color=ORANGE, alpha=0.2, lw=0, label="95 %")
        critical = fit.critical_batch
        if fit.fits and critical.low is not None and critical.high is not None:
            axes.axvline(critical.value, color=GREY, ls="--", lw=1, label=f"critical batch {number(critical.value)}")
            axes.axvspan(critical.low, critical.high, color=GREY, alpha=0.12, lw=0)
    _logs(axes, "global batch (samples)", f"{what} to {found.goal}")
    _batches(axes, points)
    axes.legend()


def _front(axes: Axes, found: Shown, points: list[Point]) -> None:
    """Updates against samples: what is paid for fewer of one in more of the other."""
    means = [(statistics.fmean(p.samples) / p.batch, statistics.fmean(p.samples)) for p in points]
    axes.scatter([s for s, _ in means], [e for _, e in means], s=26, color=BLUE, zorder=3, label="mean of the runs")
    for point, (updates, samples) in zip(points, means, strict=True):
        axes.annotate(
            f"{point.batch:,}", (updates, samples), (6, 3), textcoords="offset points", fontsize=8, color=GREY
        )
    if found.fit is not None:
        b = np.asarray([row[0] for row in found.fit.band])
        e = np.asarray([found.fit.samples(v) for v in b])
        axes.plot(e / b, e, color=ORANGE, ls="-" if found.fit.fits else ":", label="hyperbola")
    _logs(axes, f"updates to {found.goal}", "samples to the same")
    axes.legend(title="numbers: global batch")


def _accuracy(axes: Axes, found: Shown) -> None:
    for split, color, marker in (("train", ORANGE, "s"), ("validation", BLUE, "o")):
        _line(axes, [(p.batch, p.final(f"{split}_accuracy")) for p in found.points], color, marker, split)
    _against_batch(axes, found, f"accuracy after {found.length:,} samples")


def _gap(axes: Axes, found: Shown) -> None:
    _line(axes, [(p.batch, p.gaps) for p in found.points], BLUE, "o", "train minus validation accuracy")
    axes.axhline(0, color=GREY, lw=0.8)
    _against_batch(axes, found, "generalisation gap")


def _sharpness(axes: Axes, found: Shown) -> None:
    minima = found.minima
    axes.scatter([m.batch for m in minima.found], [m.eigenvalue.value for m in minima.found], s=18, color=BLUE)
    _line(axes, [(p.batch, minima.of(p.batch)) for p in found.points], BLUE, "_", "mean and standard deviation")
    _against_batch(axes, found, "largest eigenvalue of the Hessian")


def _curves(axes: Axes, found: Shown, what: str) -> None:
    """The metric on the validation set, a line for each run and a colour for each batch."""
    for i, point in enumerate(found.points):
        color = RAMP[round(i / max(len(found.points) - 1, 1) * (len(RAMP) - 1))]
        for n, run in enumerate(point.runs):
            over = 1 if what == "samples" else point.batch
            shown = f"{point.batch:,}" if n == 0 else None
            axes.plot([s / over for s, _ in run.curve], [v for _, v in run.curve], color=color, lw=1, label=shown)
    axes.axhline(found.goal.value, color=GREY, ls="--", lw=1, label="target")
    _logs(axes, what, f"validation {found.goal.metric}")
    axes.legend(title="global batch", fontsize=8)


def _line(axes: Axes, values: list[tuple[int, list[float]]], color: str, marker: str, label: str) -> None:
    """Means and standard deviations over runs."""
    known = [(b, statistics.fmean(v), statistics.stdev(v) if len(v) > 1 else 0.0) for b, v in values if v]
    if known:
        b, mean, deviation = zip(*known, strict=True)
        axes.errorbar(b, mean, deviation, color=color, marker=marker, ms=4, capsize=3, label=label)


def _against_batch(axes: Axes, found: Shown, y: str) -> None:
    axes.set_xscale("log")
    axes.set_xlabel("global batch (samples)")
    axes.set_ylabel(y)
    _batches(axes, found.points)
    axes.grid(alpha=0.3)
    axes.legend()


def _logs(axes: Axes, x: str, y: str) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    pictures.log_ticks(axes.xaxis)
    pictures.log_ticks(axes.yaxis)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.3, which="both")


def _batches(axes: Axes, points: tuple[Point, ...] | list[Point]) -> None:
    axes.set_xticks([p.batch for p in points], [f"{p.batch:,}" for p in points], rotation=30)
    axes.minorticks_off()


def _to_tensorboard(found: Shown, figures: Mapping[str, Figure], directory: Path) -> None:
    """The pictures, and the figures of each batch with the batch as the step, in place of those of an earlier call."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        logger.warning("nothing is written to %s (%s): pip install 'disttrain[tensorboard]'", directory, error)
        return
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    shutil.rmtree(directory, ignore_errors=True)
    writer = SummaryWriter(str(directory))
    for name, figure in figures.items():
        canvas = FigureCanvasAgg(figure)
        canvas.draw()  # type: ignore[no-untyped-call]
        pixels = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
        writer.add_image(f"study/{name}", pixels[..., :3], dataformats="HWC")
    for point in found.points:
        numbers = {name: point.final(name) for run in point.runs[:1] for name in run.final}
        numbers["sharpness"] = found.minima.of(point.batch)
        numbers |= {"samples_to_target": point.samples, "updates_to_target": [s / point.batch for s in point.samples]}
        for name, values in numbers.items():
            if values:
                writer.add_scalar(f"study/{name}", statistics.fmean(values), point.batch)
    writer.close()
