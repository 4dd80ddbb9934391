"""Advice in sentences, as tables and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from disttrain.advice.advise import Advice
from disttrain.advice.draws import Draws, figure
from disttrain.advice.evidence import Evidence
from disttrain.advice.goodput import Option
from disttrain.study.words import number
from disttrain.telemetry.jsonl import finite


def sentences(advice: Advice) -> list[str]:
    """The answer first, then its reasons, then what would make it more certain."""
    return [*_answer(advice), *advice.evidence.reasons, *advice.notes, *_narrower(advice)]


def _answer(advice: Advice) -> Iterator[str]:
    choice = advice.chosen
    if choice is None:
        yield f"no advice: {advice.refusal}"
        return
    chosen, rival = choice.option, choice.rival
    yield (
        f"train with {chosen.name} at rate {chosen.rate:.3g}: {spread(chosen.updates)} updates, "
        f"{spread(chosen.samples)} samples, {time(chosen.seconds)}, {_cost(advice, chosen)}, to {advice.evidence.target}"
    )
    yield (
        f"why: time times cost is least there, in {choice.share:.0%} of {chosen.samples.size - 1:,} resamplings"
        + (f" (next: {rival.name})" if rival is not None else "")
        + f", and in 95 % at most {choice.regret:.2f}x the least"
    )
    yield (
        f"it uses {_percent(chosen.efficiency)} of its samples as well as ever smaller batches would: goodput is "
        f"{spread(chosen.goodput)} samples/s of {spread(chosen.throughput)}"
    )
    yield f"rate: {chosen.why_rate}"
    yield from _neighbours(advice, chosen)


def _neighbours(advice: Advice, chosen: Option) -> Iterator[str]:
    """What a little more and a little less money would buy."""
    place = next((i for i, option in enumerate(advice.front) if option is chosen), None)
    if place is None:
        return
    for other, word in ((place + 1, "faster"), (place - 1, "cheaper")):
        if 0 <= other < len(advice.front):
            option = advice.front[other]
            yield (
                f"{word}: {option.name} takes {_change(option.seconds / chosen.seconds)} the time "
                f"for {_change(option.rank_seconds / chosen.rank_seconds)} the cost"
            )


def _narrower(advice: Advice) -> Iterator[str]:
    for sentence in advice.narrower:
        yield f"to know better: {sentence}"


HEADINGS = ("ranks", "batch", "rate", "updates", "samples", "samples/s", "time")


def headings(advice: Advice) -> tuple[str, ...]:
    return (*HEADINGS, "GPU-hours" if advice.question.price is None else "price", "best")


def rows(advice: Advice) -> list[tuple[str, ...]]:
    """The Pareto front of time against cost, the cheapest first."""
    return [
        (
            f"{o.ranks:,}",
            f"{o.batch:,}",
            f"{o.rate:.3g}",
            spread(o.updates),
            spread(o.samples),
            spread(o.throughput) + (" (forecast)" if o.origin == "forecast" else ""),
            time(o.seconds),
            spread(_price(advice, o)),
            "<-" if advice.chosen is not None and o is advice.chosen.option else "",
        )
        for o in advice.front
    ]


COST_HEADINGS = ("batch", "rate", "updates", "samples", "efficiency")


def cost_rows(advice: Advice) -> list[tuple[str, ...]]:
    """What each batch costs, whatever it runs on."""
    cost = advice.evidence.cost
    if cost is None:
        return []
    return [
        (
            f"{batch:,}",
            f"{advice.evidence.rate(batch)[0]:.3g}",
            spread(cost.samples(batch) / batch),
            spread(cost.samples(batch)),
            _percent(cost.efficiency(batch)),
        )
        for batch in advice.batches
    ]


def as_json(advice: Advice) -> dict[str, Any]:
    """Everything, as plain data; each figure with the ends of its interval of 95 %."""
    evidence = advice.evidence
    data = {
        "version": 1,
        "of": [str(place) for place in advice.question.places],
        "target": evidence.target,
        "source": evidence.source,
        "advice": None if advice.chosen is None else _plain(advice, advice.chosen.option),
        "refusal": advice.refusal or None,
        "share": None if advice.chosen is None else advice.chosen.share,
        "regret": None if advice.chosen is None else advice.chosen.regret,
        "front": [_plain(advice, option) for option in advice.front],
        "options": [_plain(advice, option) for option in advice.options],
        "batches": _batches(evidence, advice.batches),
        "critical": [{"source": c.source, "value": c.value, "low": c.low, "high": c.high} for c in evidence.criticals],
        "words": sentences(advice),
    }
    cleaned: dict[str, Any] = finite(data)
    return cleaned


def _plain(advice: Advice, option: Option) -> dict[str, Any]:
    return {
        "ranks": option.ranks,
        "batch": option.batch,
        "rate": option.rate,
        "origin": option.origin,
        "updates": _ends(option.updates),
        "samples": _ends(option.samples),
        "efficiency": _ends(option.efficiency),
        "samples_per_second": _ends(option.throughput),
        "goodput": _ends(option.goodput),
        "seconds": _ends(option.seconds),
        "gpu_hours": _ends(option.rank_seconds / 3600.0),
        "price": None if advice.question.price is None else _ends(_price(advice, option)),
    }


def _batches(evidence: Evidence, batches: tuple[int, ...]) -> list[dict[str, Any]]:
    cost = evidence.cost
    if cost is None:
        return []
    return [
        {
            "batch": batch,
            "rate": evidence.rate(batch)[0],
            "updates": _ends(cost.samples(batch) / batch),
            "samples": _ends(cost.samples(batch)),
            "efficiency": _ends(cost.efficiency(batch)),
        }
        for batch in batches
    ]


def _ends(draws: Draws) -> dict[str, float | None]:
    found = figure(draws)
    return {"value": found.value, "low": found.low, "high": found.high}


def _price(advice: Advice, option: Option) -> Draws:
    hours = option.rank_seconds / 3600.0
    return hours if advice.question.price is None else hours * advice.question.price


def _cost(advice: Advice, option: Option) -> str:
    cost = spread(_price(advice, option))
    return f"{cost} GPU-hours" if advice.question.price is None else f"a price of {cost}"


def spread(draws: Draws) -> str:
    """``1,900 (1,500 to 2,500)``; where all draws are one, that is what was trained."""
    found = figure(draws)
    if np.ptp(draws) <= 1e-9 * abs(found.value):
        return f"{number(found.value)} (as trained)"
    return f"{number(found.value)} ({number(found.low)} to {number(found.high)})"


def time(draws: Draws) -> str:
    """The same in a unit that suits it."""
    unit, seconds = next(((u, s) for u, s in _UNITS if draws[0] >= 2 * s), _UNITS[-1])
    return f"{spread(draws / seconds)} {unit}"


_UNITS = (("days", 86400.0), ("hours", 3600.0), ("min", 60.0), ("s", 1.0))


def _percent(draws: Draws) -> str:
    found = figure(draws)
    return f"{found.value:.0%} ({found.low:.0%} to {found.high:.0%})"


def _change(ratio: Draws) -> str:
    found = figure(np.asarray(ratio))
    return f"{found.value:.2f}x ({found.low:.2f} to {found.high:.2f})"
