"""What branches say: in words, as a table, as JSON, and as a picture."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from statistics import mean
from typing import Any

from disttrain.rundir.rundir import replace_file
from disttrain.study import pictures
from disttrain.study.branch import Answer, Question
from disttrain.study.crossing import Crossing
from disttrain.telemetry.jsonl import finite

RESULTS, PICTURE = "critical_batch.json", "critical_batch.svg"


def in_words(answer: Answer, margin: float) -> str:
    """One sentence for a checkpoint."""
    found, smallest, largest = answer.crossing, answer.factors[0], answer.factors[-1]
    at = f"update {answer.step} ({answer.start:,} samples)"
    of = "validation loss" if answer.split == "validation" else "training loss"
    if found.where == "beyond":
        said = f"critical batch at least {answer.batch * largest:,} ({largest}x the run's): none tried is more than"
    elif found.where == "below":
        said = f"critical batch below {answer.batch * smallest:,} ({smallest}x the run's): all tried are more than"
    elif not found.near:
        said = (
            f"critical batch somewhere between {_batch(answer, found.held)} ({found.held:g}x the run's) and "
            f"{_batch(answer, found.above)} ({found.above:g}x), too far apart to say where: from the latter on it is more than"
        )
    else:
        said = (
            f"critical batch {_batch(answer, found.factor)} ({found.factor:.1f}x the run's; tried were {found.held:g}x and "
            f"{found.above:g}x): larger ones are more than"
        )
    return f"{at}: {said} {margin:g} worse in {of} after the same {answer.samples:,} samples; {_interval(answer)}"


def rows(answers: Sequence[Answer]) -> list[tuple[str, ...]]:
    """For a table: the checkpoint, the mean loss of the base, how much worse each multiple is, and the critical batch."""
    made = []
    for answer in answers:
        base = answer.losses[1]
        gaps = [
            f"{mean(a - b for a, b in zip(answer.losses[factor], base, strict=True)):+.4f}" for factor in answer.factors
        ]
        made.append(
            (str(answer.step), f"{answer.start:,}", f"{mean(base):.4f}", *gaps, _estimate(answer), _range(answer))
        )
    return made


def headings(answers: Sequence[Answer]) -> tuple[str, ...]:
    """Of :func:`rows`."""
    return ("update", "samples", "loss 1x", *(f"{factor}x" for factor in answers[0].factors), "critical batch", "95 %")


def as_json(answers: Sequence[Answer], question: Question) -> str:
    """Everything; a number that is not finite is null, and its name says so beside it. A batch is null, too, between two that
    are too far apart to tell."""
    plain: dict[str, Any] = {"margin": question.margin, "repeats": question.repeats, "points": []}
    for answer in answers:
        found = answer.crossing
        point = {**asdict(answer), "words": in_words(answer, question.margin)}
        point["crossing"] = {
            "where": found.where,
            "batch": answer.batch * found.factor if found.near else None,
            **{name: answer.batch * getattr(found, name) for name in ("held", "above", "low", "high")},
        }
        plain["points"].append(point)
    return json.dumps(finite(plain), indent=1, allow_nan=False)


def write(out: Path, answers: Sequence[Answer], question: Question) -> list[Path]:
    """Write the JSON beside the branches, and the picture where matplotlib is installed. Returns what was written."""
    replace_file(out / RESULTS, as_json(answers, question) + "\n")
    if find_spec("matplotlib") is None:
        return [out / RESULTS]
    _draw(out / PICTURE, answers, question)
    return [out / RESULTS, out / PICTURE]


def _draw(path: Path, answers: Sequence[Answer], question: Question) -> None:
    figure = pictures.figure(9, 3.6)
    gaps, growth = figure.subplots(1, 2)
    for answer in answers:
        batches = [answer.batch * factor for factor in (1, *answer.factors)]
        worse = [
            mean(a - b for a, b in zip(answer.losses[f], answer.losses[1], strict=True)) for f in (1, *answer.factors)
        ]
        gaps.plot(
            batches,
            [value if math.isfinite(value) else math.nan for value in worse],
            "o-",
            label=f"update {answer.step}",
        )
        found, largest = answer.crossing, answer.batch * answer.factors[-1]
        at, low = min(answer.batch * _shown(found), largest), answer.batch * found.low
        high = answer.batch * found.high if math.isfinite(found.high) else largest
        growth.plot([answer.start, answer.start], [low, max(high, low)], "-", color="C0")
        growth.plot(
            answer.start, at, "^" if found.where == "beyond" else "v" if found.where == "below" else "o", color="C0"
        )
    gaps.axhline(question.margin, color="grey", linestyle="--")
    gaps.set(xscale="log", xlabel="batch", ylabel="loss above that of the run's batch")
    gaps.legend()
    growth.set(yscale="log", xlabel="samples seen", ylabel="critical batch (triangle: at least, or below)")
    pictures.write(figure, path)


def _shown(found: Crossing) -> float:
    """Where a picture has the answer: between batches that are far apart in the middle."""
    ends = {"below": found.above, "beyond": found.held, "between": math.sqrt(found.held * found.above)}
    return found.factor if found.near else ends[found.where]


def _batch(answer: Answer, factor: float) -> str:
    return f"{answer.batch * factor:,.0f}"


def _estimate(answer: Answer) -> str:
    found = answer.crossing
    if found.near:
        return _batch(answer, found.factor)
    if found.where == "between":
        return f"{_batch(answer, found.held)} to {_batch(answer, found.above)}"
    return (
        f"at least {_batch(answer, answer.factors[-1])}"
        if found.where == "beyond"
        else f"below {_batch(answer, answer.factors[0])}"
    )


def _range(answer: Answer) -> str:
    found = answer.crossing
    if not math.isfinite(found.high):
        return f"at least {_batch(answer, found.low)}" if found.low > 1.0 else "unbounded"
    return f"{_batch(answer, found.low)} to {_batch(answer, found.high)}"


def _interval(answer: Answer) -> str:
    if len(answer.losses[1]) == 1:
        return "one repeat gives no interval"
    if _range(answer) == "unbounded":
        return "these repeats bound it on neither side: more of them would"
    return f"95 % interval {_range(answer)}"
