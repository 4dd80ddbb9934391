"""What a scaling says, in words and in tables."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

from disttrain.scaling.record import Forecast, Interval, Mode, ScaledRun, Scaling, Split

CALLED = {
    "exchange": "communication",
    "stragglers": "waiting for the slowest rank",
    "data": "waiting for data",
    "optimizer": "the optimizer",
    "interpreter": "the interpreter",
    "compute": "slower computation",
}
THROUGHPUT = ("scaling", "ranks", "batch", "samples per second", "of ideal", "step, ms")
PARTS = ("scaling", "ranks", *Split.__slots__)


def ideal(base: ScaledRun, ranks: int) -> float:
    """Samples per second of so many ranks, each as fast as those of ``base``."""
    return base.samples_per_second.median / base.ranks * ranks


def losses(base: ScaledRun, run: ScaledRun) -> dict[str, float]:
    """Of each part, what share of the step it takes beyond what it would take if all ranks were as fast as those of ``base``."""
    if base.split is None or run.split is None:
        return {}
    ratio = (run.global_batch / run.ranks) / (base.global_batch / base.ranks)
    before, now = asdict(base.split), asdict(run.split)
    return {name: (now[name] - ratio * before[name]) / run.split.step for name in CALLED}


def sentences(scaling: Scaling, again: float | None = None) -> tuple[str, ...]:
    """The verdict first.

    Args:
        again: how far the same step differs from itself, the median relative difference; None: not known.
    """
    found = [verdict(scaling)]
    for mode in _modes(scaling):
        found += _growth(scaling.of(mode))
    shares = [run.unexplained for run in scaling.runs if run.unexplained is not None]
    if shares and again is not None:
        worst = max(shares, key=lambda share: abs(share.median))
        found.append(
            f"what the parts of a step leave unexplained is at most {_signed(worst)} of it; the same step measured twice differs "
            f"by {again:.1%}"
        )
    for run in scaling.runs:
        if run.cores is not None and run.ranks > run.cores:
            found.append(
                f"{run.ranks} ranks took turns on {run.cores} cores: their efficiency is that of this machine, and nothing is "
                "fitted to them"
            )
    model = scaling.exchange
    if model is not None:
        found.append(
            f"an all-reduce of n bytes on p ranks takes 2 (p - 1) x {_small(model.alpha_interval, 1e6)} us + 2 (p - 1) / p n x "
            f"{_small(model.seconds_per_byte_interval, 1e9)} ns, half of those measured within {model.error:.0%} of that"
        )
    found += _forecasts(scaling)
    return tuple(dict.fromkeys(found))


def verdict(scaling: Scaling) -> str:
    """In one sentence."""
    told = []
    for mode in _modes(scaling):
        base, *more = scaling.of(mode)
        if not more:
            continue
        last = more[-1]
        efficiency = last.samples_per_second.median / ideal(base, last.ranks)
        lost = losses(base, last)
        words = f"{mode} scaling reaches {efficiency:.0%} of the ideal throughput at {last.ranks} ranks"
        if last.split is not None:
            largest = max(lost, key=lambda name: lost[name])
            words += f", communication costs {last.split.exchange / last.split.step:.0%} of a step"
            words += f", and the largest loss is {CALLED[largest]} ({lost[largest]:.0%})" if lost[largest] > 0 else ""
        told.append(words)
    if told:
        return "; ".join(told)
    run = scaling.runs[0]
    return f"{run.samples_per_second.median:,.0f} samples per second on {_ranks(run.ranks)}, and nothing to compare it with"


def _growth(runs: list[ScaledRun]) -> Iterator[str]:
    base = runs[0]
    for run in runs[1:]:
        speed = run.samples_per_second
        times = [value / base.samples_per_second.median for value in (speed.median, speed.low, speed.high)]
        yield (
            f"{run.mode}: {run.ranks} ranks train {times[0]:.2f} times ({times[1]:.2f} to {times[2]:.2f}) as many samples per "
            f"second as {base.ranks}"
        )


def _forecasts(scaling: Scaling) -> Iterator[str]:
    for mode in _modes(scaling):
        base, found = scaling.of(mode)[0], [f for f in scaling.forecast if f.mode == mode]
        told = [
            f"{f.ranks} ranks {_number(f.samples_per_second)} samples per second, "
            f"{f.samples_per_second.median / ideal(base, f.ranks):.0%} of ideal"
            for f in found
        ]
        if told:
            yield f"forecast, not measured ({mode} scaling on a network like the one that was measured): {'; '.join(told)}"
    if not scaling.forecast:
        yield "no forecast: it takes the split of a step on at least 2 ranks with a core each"


def throughput(scaling: Scaling) -> Iterator[tuple[str, ...]]:
    """Rows of the table of ``THROUGHPUT``, measured and forecast."""
    for mode in _modes(scaling):
        runs = scaling.of(mode)
        points: list[ScaledRun | Forecast] = [*runs, *(made for made in scaling.forecast if made.mode == mode)]
        for run in points:
            speed = run.samples_per_second
            yield (
                mode if isinstance(run, ScaledRun) else f"{mode}, forecast",
                str(run.ranks),
                f"{run.global_batch:,}",
                _number(speed),
                f"{speed.median / ideal(runs[0], run.ranks):.0%}",
                f"{run.global_batch / speed.median * 1e3:.3g}",
            )


def parts(scaling: Scaling) -> Iterator[tuple[str, ...]]:
    """Rows of the table of ``PARTS``: shares of a step; none of runs whose split is not known."""
    for run in scaling.runs:
        if run.split is not None and run.unexplained is not None:
            *shares, _ = (f"{part / run.split.step:.1%}" for part in asdict(run.split).values())
            yield run.mode, str(run.ranks), *shares, _signed(run.unexplained)


def _modes(scaling: Scaling) -> list[Mode]:
    return list(dict.fromkeys(run.mode for run in scaling.runs))


def _ranks(number: int) -> str:
    return f"{number} rank{'s' * (number > 1)}"


def _number(value: Interval) -> str:
    return f"{_three(value.median)} ({_three(value.low)} to {_three(value.high)})"


def _three(value: float) -> str:
    """Three digits that count."""
    return f"{float(f'{value:.3g}'):,.0f}" if value >= 100 else f"{value:.3g}"


def _small(value: Interval, unit: float) -> str:
    return f"{value.median * unit:.3g} ({value.low * unit:.3g} to {value.high * unit:.3g})"


def _signed(share: Interval) -> str:
    return f"{share.median:+.1%} ({share.low:+.1%} to {share.high:+.1%})"
