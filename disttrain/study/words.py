"""What a study says, in sentences."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterator, Sequence

from disttrain.study.fit import Interval
from disttrain.study.study import Found, Point
from disttrain.study.trials import Outcome, Trial

WSD = "arXiv:2601.05034"


def sentences(found: Found) -> list[str]:
    """The answer first, then what it rests on, then what is to be doubted."""
    return [*_answer(found), *_fit(found), *_sharp(found), *_doubts(found)]


def of_trial(trial: Trial) -> str:
    """``batch 64, rate x 0.5, seed 1``: which training that is; the factor is on what the law gives."""
    exponent = int(trial.run_dir.name.split("-x")[1].split("-s")[0])
    return f"batch {trial.recipe.batch.global_:,}, rate x {2.0**exponent:g}, seed {trial.recipe.seed}"


def ended(outcome: Outcome) -> str:
    """How a training ended. What to do after one that diverged is not said: a search goes on by itself."""
    return (
        f"diverged in update {outcome.updates + 1:,}" if outcome.state == "diverged" else outcome.why or outcome.state
    )


def critical_batch(interval: Interval) -> str:
    """``critical batch 409 (295 to 577)``, or that there is none to be had."""
    if interval.low is None and interval.high is None:
        return "these batches do not tell the critical batch"
    return f"critical batch {spoken(interval)}"


def spoken(interval: Interval) -> str:
    """``1,900 (1,500 to 2,500)``, or ``at least 1,500`` where there is no other end."""
    low, high = interval.low, interval.high
    if low is None and high is None:
        return "not known"
    if high is None:
        return f"at least {number(low)}"
    if low is None:
        return f"at most {number(high)}"
    return f"{number(interval.value)} ({number(low)} to {number(high)})"


def number(value: float | None) -> str:
    """Three digits, or all of a count."""
    if value is None:
        return "?"
    return f"{float(f'{value:.3g}'):,.0f}" if value >= 100 else f"{value:.3g}"


def _answer(found: Found) -> Iterator[str]:
    points = [p for p in found.points if p.samples]
    if found.fit is None:
        yield (
            f"only batch {points[0].batch} has reached {found.goal}: one batch says nothing of a critical one; run batches that "
            "are closer to it, or give an easier --target"
        )
        return
    fit = found.fit
    if not fit.fits:
        yield f"no critical batch in the sense of the hyperbola: it does not fit (p = {fit.p_value:.2g})"
        yield from without_fit(points, fit.scatter)
        return
    told = fit.critical_batch.low is not None or fit.critical_batch.high is not None
    yield (
        critical_batch(fit.critical_batch)
        + ": there the target costs twice the least samples and twice the fewest updates" * told
        + f"; the least samples, of ever smaller batches, are {spoken(fit.least_samples)}, and the fewest updates, of ever "
        f"larger ones, {spoken(fit.least_updates)}"
    )


def _fit(found: Found) -> Iterator[str]:
    fit = found.fit
    if fit is None:
        return
    if fit.p_value is None:
        yield "two batches always lie on a hyperbola: whether it is the right curve takes a third"
    elif fit.fits:
        yield (
            f"the hyperbola fits these {len(fit_points(found.points))} batches (p = {fit.p_value:.2g}); one run's samples "
            f"scatter by {fit.scatter:.1%} over seeds"
        )


def without_fit(points: list[Point], scatter: float) -> Iterator[str]:
    """What the data say by themselves.

    Args:
        scatter: standard deviation of the logarithm of one run's samples.
    """
    means = [(p.batch, statistics.fmean(p.samples)) for p in points]
    best, least = min(means, key=lambda pair: pair[1])
    yield f"what was measured: the samples to the target are least at batch {best:,} ({number(least)})"
    runs = {p.batch: len(p.samples) for p in points}
    error = scatter * math.sqrt(1 / runs[best] + 1 / runs[means[0][0]])
    if math.log(means[0][1] / least) > 2 * error:
        yield (
            f"smaller batches need more samples than {best:,}, which no hyperbola does: so it is where the rate does not decay, "
            f"or decays late ({WSD})"
        )
    doubled = doubling_batch(means)
    if doubled is None:
        yield f"and less than twice that up to batch {means[-1][0]:,}"
    else:
        value, low, high = doubled
        yield f"and twice that at batch {number(value)}, between {low:,} and {high:,}"


def doubling_batch(means: Sequence[tuple[int, float]]) -> tuple[float, int, int] | None:
    """The batch at which the samples are twice the least, between two of the batches on a line in logarithms, and those two.

    Args:
        means: batches, rising, and their samples to the target.
    """
    best, least = min(means, key=lambda pair: pair[1])
    for (b1, e1), (b2, e2) in itertools.pairwise(pair for pair in means if pair[0] >= best):
        if e1 < 2 * least <= e2:
            share = math.log(2 * least / e1) / math.log(e2 / e1)
            return b1 * (b2 / b1) ** share, b1, b2
    return None


def _sharp(found: Found) -> Iterator[str]:
    """What a column of sharpness is of."""
    minima = found.minima.found
    if minima:
        seen = sorted(each.seen for each in minima)
        yield (
            f"sharpness is the largest eigenvalue of the Hessian of the train loss ({minima[0].eigenvalue.samples:,} samples) at "
            f"each result's last weights, after {seen[0]:,} "
            + f"to {seen[-1]:,} " * (seen[0] < seen[-1])
            + "samples"
            + (
                ": a run goes on past the recipe's length until it has reached the target, so they were not all trained alike"
                if _delayed(found)
                else ""
            )
        )
    loose = [each.run_dir for each in minima if not each.eigenvalue.converged]
    if loose:
        yield f"sharpness has not converged in {', '.join(loose)}: it may be larger"
    yield from (f"no sharpness of {words}" for words in found.minima.left_out)


def _delayed(found: Found) -> bool:
    """Whether a result went on after its first evaluation at the recipe's length."""
    length = min(found.base.length, found.base.budget)
    return any(sum(samples >= length for samples, _ in run.curve) > 1 for point in found.points for run in point.runs)


def _doubts(found: Found) -> Iterator[str]:
    yield from found.base.notes
    for point in found.points:
        reached = [run for run in point.runs if run.samples is not None]
        if len(reached) < len(point.runs):
            yield f"batch {point.batch:,}: {len(reached)} of {len(point.runs)} runs reached the target; left out of the fit"
        elif min(point.samples) < 4 * max(found.base.every, point.batch):
            yield (
                f"batch {point.batch:,}: the target is reached within 4 evaluations, so its samples are uncertain by parts of "
                f"{max(found.base.every, point.batch):,}: choose a harder target or a smaller --every"
            )
        if point.edge:
            yield f"batch {point.batch:,}: its best rate {point.rate:.3g} lies at the edge of those tried: try more with --rates"


def fit_points(points: Sequence[Point]) -> list[Point]:
    """The batches that the fit is of."""
    return [point for point in points if point.samples]
