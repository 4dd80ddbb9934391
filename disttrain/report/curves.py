"""The curves of a run, and of several runs in the same axes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from disttrain.report.blocks import Part, Picture, Section, Table, table
from disttrain.report.chart import Curve, Floats, amount, chart
from disttrain.report.run import AXES, By, Run, Series, count

SPLITS = ("train", "validation", "test")
SHOWN = ("loss", "lr", "grad_norm", "samples_per_second", "global_batch")
"""Of the training lines, those that have charts of their own; noise scales have too."""
FEW = 6
"""Layers that are drawn one by one; of more, the middle and the spread."""


def sections(runs: Sequence[Run], by: By, key: str) -> tuple[Section, ...]:
    """What was recorded, run by run in the same axes; figures of what nobody recorded are left out.

    Args:
        key: of no other figures of the page.
    """
    return (
        Section("Curves", (*_losses(runs, by, key), *_rates(runs, by, key))),
        Section("Noise scale", tuple(_noise(runs, by, key))),
        Section(
            "Gradient and throughput", (*_gradients(runs, by, key), *_speeds(runs, by, key), *_layered(runs, by, key))
        ),
        Section("Other numbers", tuple(_others(runs, by, key))),
    )


def _losses(runs: Sequence[Run], by: By, key: str) -> Iterator[Part]:
    yield from _one(runs, by, f"{key}-loss", "Training loss", "loss", "loss of the update's batch", log=True)
    metrics = dict.fromkeys(m for run in runs for split in run.splits.values() for m in split)
    for i, metric in enumerate(metrics):
        curves: list[Curve] = []
        for n, run in enumerate(runs):
            for split in dict.fromkeys((*SPLITS, *run.splits)):
                series = run.splits.get(split, {}).get(metric)
                if series is None or (len(runs) > 1 and split == "train"):
                    continue
                color = len(curves) if len(runs) > 1 else list(dict.fromkeys((*SPLITS, *run.splits))).index(split)
                label = f"{run.name}, {split}" if len(runs) > 1 else f"{split} set"
                if len(runs) > 1 and len([s for s in run.splits if s != "train"]) == 1:
                    color = n
                curves.append(Curve(label, series.at[by], series.values, color=color, marked=True))
        yield from _drawn(f"{key}-metric{i}", f"Evaluated {metric}", curves, by, metric, log=metric == "loss")


def _rates(runs: Sequence[Run], by: By, key: str) -> Iterator[Part]:
    yield from _one(runs, by, f"{key}-lr", "Learning rate", "lr", "learning rate")
    if any("global_batch" in run.train or _changes(run) for run in runs):
        curves = [Curve(run.name, *batches(run, by), color=n) for n, run in enumerate(runs)]
        yield from _drawn(f"{key}-batch", "Global batch", curves, by, "samples")


def _noise(runs: Sequence[Run], by: By, key: str) -> Iterator[Part]:
    names = [n for run in runs for n in run.train if n.startswith("noise_scale") and not _end_of_band(n)]
    for i, name in enumerate(dict.fromkeys(names)):
        curves: list[Curve] = []
        for n, run in enumerate(runs):
            if name not in run.train:
                continue
            series = run.train[name]
            low, high = (
                _at(run.train.get(f"{name}_{end}"), series, miss) for end, miss in (("low", 0.0), ("high", np.inf))
            )
            curves.append(
                Curve(run.name if len(runs) > 1 else "noise scale", series.at[by], series.values, low, high, n)
            )
        if len(runs) == 1 and curves:
            x, y = batches(runs[0], by)
            curves.append(Curve("global batch", x, y, color=1))
        title = "Noise scale" + (f" of {name.partition('/')[2]}" if "/" in name else "")
        note = "The band is the interval of 95 %; a batch far below the line loses few samples by being larger."
        yield from _drawn(f"{key}-noise{i}", title, curves, by, "samples", log=True, note=note)


def _gradients(runs: Sequence[Run], by: By, key: str) -> Iterator[Part]:
    yield from _one(runs, by, f"{key}-grad", "Gradient norm", "grad_norm", "2-norm before clipping", log=True)


def _layered(runs: Sequence[Run], by: By, key: str) -> Iterator[Part]:
    """What each layer wrote, pictures before tables; of one run only, as several are too many lines."""
    if len(runs) > 1:
        return
    kinds = [(kind.replace("_", " "), layers) for kind, layers in runs[0].layers.items() if layers]
    for i, (kind, layers) in enumerate(kinds):
        if len(layers) <= FEW:
            curves = [Curve(layer, s.at[by], s.values, color=n) for n, (layer, s) in enumerate(layers.items())]
            yield chart(f"{key}-layers{i}", f"{kind.capitalize()} by layer", curves, AXES[by], kind, log=True)
        else:
            yield _spread(f"{key}-layers{i}", kind.capitalize(), layers, by)
    yield from (_layers(kind.capitalize(), layers) for kind, layers in kinds)


def _speeds(runs: Sequence[Run], by: By, key: str) -> Iterator[Part]:
    yield from _one(
        runs,
        by,
        f"{key}-speed",
        "Throughput",
        "samples_per_second",
        "samples per second, all ranks",
        log=False,
        zero=True,
    )


def _others(runs: Sequence[Run], by: By, key: str) -> Iterator[Part]:
    names = dict.fromkeys(n for run in runs for n in run.train if n not in SHOWN and not n.startswith("noise_scale"))
    for i, name in enumerate(names):
        yield from _one(runs, by, f"{key}-other{i}", name.replace("_", " ").capitalize(), name, name.replace("_", " "))


def _one(
    runs: Sequence[Run], by: By, key: str, title: str, name: str, label: str, *, log: bool = False, zero: bool = False
) -> Iterator[Picture]:
    """A number of the training lines."""
    curves = [
        Curve(run.name, run.train[name].at[by], run.train[name].values, color=n)
        for n, run in enumerate(runs)
        if name in run.train
    ]
    yield from _drawn(key, title, curves, by, label, log=log, zero=zero)


def _drawn(
    key: str,
    title: str,
    curves: Sequence[Curve],
    by: By,
    label: str,
    *,
    log: bool = False,
    note: str = "",
    zero: bool = False,
) -> Iterator[Picture]:
    if any(np.isfinite(curve.y).any() for curve in curves):
        yield chart(key, title, curves, AXES[by], label, log=log, note=note, zero=zero)


def _spread(key: str, title: str, layers: Mapping[str, Series], by: By) -> Picture:
    """Median over the layers, and the middle 80 % of them."""
    at = max((s for s in layers.values()), key=lambda s: len(s.values)).at
    rows = [
        np.interp(at["updates"], s.at["updates"], s.values) for s in layers.values() if len(s.finite) == len(s.values)
    ]
    low, middle, high = np.nanquantile(np.array(rows or [np.full(len(at[by]), np.nan)]), [0.1, 0.5, 0.9], axis=0)
    note = f"Median of {len(rows)} layers; the band holds the middle 80 % of them."
    return chart(
        key,
        f"{title} over layers",
        [Curve("median", at[by], middle, low, high)],
        AXES[by],
        title.lower(),
        log=True,
        note=note,
    )


def _layers(title: str, layers: Mapping[str, Series]) -> Table:
    rows = [
        (layer, amount(s.finite[0]), amount(float(np.median(s.finite))), amount(s.finite[-1]))
        for layer, s in layers.items()
        if len(s.finite)
    ]
    return table(f"{title} by layer", ("layer", "first", "median", "last"), rows, folded=len(rows) > FEW)


def _changes(run: Run) -> bool:
    return any(event.get("event") == "batch" for event in run.events)


def batches(run: Run, by: By) -> tuple[Floats, Floats]:
    """The global batch along the run: as its lines say, or as it began and was changed."""
    if "global_batch" in run.train:
        return run.train["global_batch"].at[by], run.train["global_batch"].values
    line = run.train["loss"] if "loss" in run.train else next(iter(run.train.values()))
    updates = line.at["updates"]
    begun = [count(event, "global_batch") for event in run.events if event.get("event") == "start"]
    batch = np.full(len(updates), float(begun[0] if begun and begun[0] else run.batch))
    for event in run.events:
        since, size = count(event, "from_update"), count(event, "global_batch")
        if event.get("event") == "batch" and since is not None and size is not None:
            batch[updates >= since] = size
    return line.at[by], batch


def _end_of_band(name: str) -> bool:
    return name.endswith(("_low", "_high", "_passed_over"))


def _at(series: Series | None, other: Series, missing: float) -> Floats:
    """The values of ``series`` at the updates of ``other``; ``missing`` where it has none."""
    known = {} if series is None else dict(zip(series.at["updates"], series.values, strict=True))
    return np.array([known.get(step, missing) for step in other.at["updates"]], dtype=np.float64)
