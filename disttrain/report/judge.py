"""The verdict on a run, made from what it measured and nothing else; and what it does not tell."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from disttrain.report.blocks import Verdict
from disttrain.report.branches import Branches
from disttrain.report.chart import amount
from disttrain.report.curves import batches
from disttrain.report.run import Run, Series
from disttrain.telemetry.lines import percent

WORSE = 0.05
"""How far above its least a held-out loss may end and the run still count as trained well."""
LEARNED = 0.05
"""How far a loss has to fall to count as learned at all."""
RULES = (
    "Trained well: the run finished, every number that it wrote is finite, and the loss on held-out data ends lower than "
    f"its first evaluation and at most {100 * WORSE:.0f} % above its least. Overfitted: it ends higher than that while the "
    f"training loss fell. Nothing learned: the training loss fell by less than {100 * LEARNED:.0f} %.",
    "A batch is below or above the critical batch where the whole interval (95 %) of the estimate is; by branches where there "
    "are any, else by the gradient noise scale, which estimates it (arXiv:1812.06162).",
    "Nothing here is guessed: what was not measured is listed as not known.",
)


@dataclass(frozen=True, slots=True)
class Critical:
    """An estimate of the critical batch; an end that is not known is 0 or infinite."""

    value: float | None
    low: float
    high: float
    origin: str


def verdict(run: Run, branches: Branches | None) -> Verdict:
    """Of a run by itself."""
    found = critical(run, branches)
    said = [*_ended(run), *_learned(run), *([] if found is None else _batch(run, found))]
    return Verdict(run.name, tuple(said), tuple(_unknown(run, found)))


def held_out(run: Run) -> tuple[str, Series] | None:
    """The set that a run is judged by, and its loss there; None: there is none."""
    for split in ("validation", "test"):
        loss = run.splits.get(split, {}).get("loss")
        if loss is not None and len(loss.finite):
            return split, loss
    return None


def critical(run: Run, branches: Branches | None) -> Critical | None:
    """What is known of the critical batch at the end of the run."""
    if branches is not None:
        latest = branches.points[-1]
        return Critical(latest.batch, latest.low or 0.0, latest.high or math.inf, "by branches")
    for name, what in (("noise_scale", "the noise scale"), ("noise_scale_norm_layers", "the norm layers' noise scale")):
        series = run.train.get(name), run.train.get(f"{name}_low"), run.train.get(f"{name}_high")
        value, low, high = (None if s is None else _latest(run, s) for s in series)
        if low is not None and low > 0:
            return Critical(value, low, high if high is not None else math.inf, f"by {what}")
    return None


def result(run: Run) -> str | None:
    """``test accuracy 98.3 %``: the figure that a run is known by, at its end."""
    found = held_out(run)
    if found is None:
        return None
    split = "test" if "test" in run.splits else found[0]
    accuracy, loss = run.splits[split].get("accuracy"), run.splits[split].get("loss")
    if accuracy is not None and len(accuracy.finite):
        return f"{split} accuracy {percent(accuracy.finite[-1])}"
    return f"{split} loss {amount(loss.finite[-1])}" if loss is not None and len(loss.finite) else None


def _latest(run: Run, series: Series) -> float | None:
    """The value at the last training line; None where that one had none, whatever earlier ones had."""
    at_end = series.at["updates"][-1] == run.train["loss"].at["updates"][-1] if "loss" in run.train else True
    return float(series.values[-1]) if at_end and math.isfinite(series.values[-1]) else None


def _ended(run: Run) -> Iterator[str]:
    total = run.planned("total_updates") or run.planned("updates")
    place = f"update {run.last_step:,}" + (
        f" of {total:,}" if isinstance(total, int) and total >= run.last_step else ""
    )
    match run.state:
        case "failed":
            yield f"failed at {place}: {run.ending.get('message', 'no reason was recorded')}"
        case "stopped":
            yield f"stopped on request after {place}, to be resumed"
        case "open":
            yield f"not finished: the last line is of {place}, and no end is recorded"
    if isinstance(run.ending.get("stopped"), str):
        yield f"ended early: {run.ending['stopped']}"
    if run.nonfinite:
        yield f"{run.nonfinite:,} line{'s have' if run.nonfinite > 1 else ' has'} numbers that are not finite"


def _learned(run: Run) -> Iterator[str]:
    train, held, figure = run.train.get("loss"), held_out(run), result(run)
    fell = train is not None and len(train.finite) > 1 and train.finite[-1] < (1 - LEARNED) * abs(train.finite[0])
    tail = f": {figure}" if figure else ""
    if train is None or not len(train.finite):
        yield f"no training loss was recorded{tail}"
    elif not fell and len(train.finite) > 1:
        yield f"nothing learned yet: the training loss went from {amount(train.finite[0])} to {amount(train.finite[-1])}{tail}"
    elif held is None:
        yield f"the training loss fell from {amount(train.finite[0])} to {amount(train.finite[-1])}"
    else:
        yield from _generalised(run, *held, tail)


def _generalised(run: Run, split: str, loss: Series, tail: str) -> Iterator[str]:
    values, least = loss.finite, float(loss.finite.min())
    where = int(loss.at["updates"][loss.values == least][0])
    if values[-1] > least + WORSE * abs(least):
        above = (values[-1] - least) / abs(least) if least else math.inf
        yield f"overfitted: the {split} loss ends {100 * above:.0f} % above its least, which was at update {where:,}{tail}"
    elif run.state == "finished" and not run.nonfinite and len(values) > 1 and values[-1] < values[0]:
        yield f"trained well{tail}"
    elif len(values) > 1 and values[-1] < values[0]:
        yield f"learning well so far{tail}"
    elif len(values) > 1:
        yield f"the {split} loss did not fall after its first evaluation{tail}"
    else:
        yield f"the training loss fell{tail}"


def _batch(run: Run, found: Critical) -> Iterator[str]:
    batch = run.batch
    if batch < 1:
        return
    ends = f"{amount(found.low)} to {amount(found.high)}, " if found.high < math.inf else ""
    around, middle = f"({ends}{found.origin})", found.value if found.value is not None else found.low
    if found.low > batch:
        times = f"{middle / batch:.2g}x" if found.high < math.inf else f"at least {found.low / batch:.2g}x"
        yield f"batch {batch:,} is {times} below critical at the end {around}{_before(run, 'above')}"
    elif found.high < batch:
        yield f"batch {batch:,} is {batch / middle:.2g}x above critical at the end {around}{_before(run, 'below')}"
    elif found.high < math.inf:
        yield f"batch {batch:,} is about critical at the end {around}"


def _before(run: Run, side: Literal["above", "below"]) -> str:
    """Of how much of the run the batch was on the other side of the noise scale; nothing where that is not measured, or never."""
    low, high = run.train.get("noise_scale_low"), run.train.get("noise_scale_high")
    series = high if side == "above" else low
    if series is None or "loss" not in run.train:
        return ""
    at, sizes = batches(run, "updates")
    size = dict(zip(at, sizes, strict=True))
    pairs = [
        (value, size.get(step, run.batch)) for step, value in zip(series.at["updates"], series.values, strict=True)
    ]
    there = sum(value < batch if side == "above" else value > batch for value, batch in pairs)
    share = there / len(run.train["loss"].values)
    return f", and was {side} it for {100 * share:.0f} % of the run" if share >= 0.01 else ""


def _unknown(run: Run, found: Critical | None) -> Iterator[str]:
    if held_out(run) is None:
        yield "how well it generalises: nothing was evaluated on held-out data"
    elif "validation" not in run.splits and "test" in run.splits:
        yield "how it does on data that nobody chose by: there is no validation set, so checkpoints are chosen on the test set"
    if found is None and not any(name.startswith("noise_scale") for name in run.train):
        yield "whether the batch is large or small: the noise scale was not measured (noise_scale: {every_steps: 10})"
    elif found is None:
        yield "whether the batch is large or small: the noise scale is not known well enough for an interval"
    elif found.high == math.inf and found.low <= run.batch:
        yield f"how the batch compares with the critical one: only that that is at least {amount(found.low)} ({found.origin})"
    ranks = run.machine("ranks")
    if isinstance(ranks, int) and ranks > 1:
        yield f"what communication costs at {ranks} ranks: disttrain scale measures it"
    yield "how much of it is luck: this is one seed"
