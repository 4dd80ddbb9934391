"""Records as text for people: one compact line each, in ASCII."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

Record = Mapping[str, Any]

_TRAINING = ("step", "epoch", "samples", "loss", "lr", "grad_norm", "samples_per_second")
_DATA = ("samples", "numerics", "end")
"""Events of many values each, which programs read from ``metrics.jsonl``; the end is told by the summary."""
_DETAILS = re.compile(r"noise_scale.*_(low|high|passed_over)$|noise_scale\w*/")
"""Numbers of a training line that an evaluation puts into a sentence."""
_EVALUATION = ("split", "step", "epoch", "samples", "loss", "accuracy")


def is_for_people(record: Record) -> bool:
    """Whether a record is to be shown at all."""
    return record.get("event") not in _DATA


def describe(record: Record, total_samples: int) -> str:
    """The line for a record.

    Args:
        record: see `disttrain.telemetry`.
        total_samples: number of training samples in the whole run, for the time that is left.
    """
    if "event" in record:
        return _event(record)
    if "split" in record:
        return _evaluation(record)
    return training(record, total_samples)


def training(record: Record, total_samples: int) -> str:
    """``step 200  epoch 1.70  samples 102400  loss 0.4321  lr 0.0987 ...``, aligned from line to line."""
    parts = []
    if "step" in record:
        parts.append(f"step {record['step']:>6}")
    if "epoch" in record:
        parts.append(f"epoch {_epoch(record['epoch']):>5}")
    if "samples" in record:
        parts.append(f"samples {record['samples']:>{len(str(total_samples))}}")
    parts += [f"{name} {number(record[name]):>9}" for name in ("loss", "lr", "grad_norm") if name in record]
    parts += _others(record, _TRAINING)
    if "samples_per_second" in record:
        parts.append(f"{rate(record['samples_per_second']):>8} samples/s")
    left = seconds_left(record, total_samples)
    if left is not None:
        parts.append(f"eta {duration(left)}")
    return "  ".join(parts)


def training_in_short(record: Record, total_samples: int) -> str:
    """``step 200 epoch 1.70 loss 0.4321 lr 0.0987 12,346/s 0:00:12 left``: what fits beside a progress bar."""
    parts = [f"step {record['step']}"] if "step" in record else []
    parts += [f"epoch {_epoch(record['epoch'])}"] if "epoch" in record else []
    parts += [f"{name} {number(record[name])}" for name in ("loss", "lr") if name in record]
    if "samples_per_second" in record:
        parts.append(f"{rate(record['samples_per_second'])}/s")
    left = seconds_left(record, total_samples)
    if left is not None:
        parts.append(f"{duration(left)} left")
    return " ".join(parts)


def _evaluation(record: Record) -> str:
    """``evaluation on test  step 200  epoch 1.70  loss 0.2541  accuracy 91.23 %``"""
    parts = [f"evaluation on {record['split']}"]
    if "step" in record:
        parts.append(f"step {record['step']}")
    if "epoch" in record:
        parts.append(f"epoch {_epoch(record['epoch'])}")
    if "loss" in record:
        parts.append(f"loss {number(record['loss'])}")
    if "accuracy" in record:
        parts.append(f"accuracy {percent(record['accuracy'])}")
    return "  ".join(parts + _others(record, _EVALUATION))


def _event(record: Record) -> str:
    """``start  step 0  ranks 2  engine ddp``, or ``warning: a message``; lists are for programs."""
    event, message = str(record["event"]), str(record.get("message", ""))
    parts = [message if begins_with(message, event) else f"{event}: {message}" if message else event]
    shown = {name: value for name, value in record.items() if name not in ("event", "message")}
    parts += [f"{name} {value_of(name, value)}" for name, value in shown.items() if not isinstance(value, list)]
    return "  ".join(parts)


def seconds_left(record: Record, total_samples: int) -> float | None:
    """Seconds until ``total_samples`` at the speed of this record; None where that cannot be told."""
    samples, speed = record.get("samples"), record.get("samples_per_second")
    if samples is None or speed is None or not 0 < speed < math.inf:
        return None
    return max(0.0, float(total_samples - samples) / float(speed))


def value_of(name: str, value: Any) -> str:
    """A value as text, in the unit that its name tells."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if name == "accuracy" or name.endswith("_accuracy"):
        return percent(value)
    if name == "seconds" or name.endswith("_seconds"):
        return duration(value)
    if "per_second" in name:
        return rate(value)
    return number(value)


def number(value: float) -> str:
    """Four decimals where that is readable, else an exponent; whole numbers as they are."""
    if isinstance(value, int):
        return str(value)
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    return f"{value:.4f}" if 1e-3 <= abs(value) < 1e4 else f"{value:.3e}"


def begins_with(message: str, name: str) -> bool:
    """Whether a sentence names its subject, ``noise_scale`` as ``noise scale``, so that the name need not stand before it."""
    return message.startswith(f"{name.replace('_', ' ')} ")


def rate(value: float) -> str:
    """Whole numbers with thousands apart, or three digits below 100."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def percent(fraction: float) -> str:
    return f"{100 * fraction:.2f} %"


def duration(seconds: float) -> str:
    """``0:01:05``, or ``1.53 s`` below 10 seconds."""
    if not math.isfinite(seconds):
        return f"{seconds} s"
    return f"{seconds:.2f} s" if 0 < seconds < 10 else str(timedelta(seconds=round(seconds)))


def _epoch(epoch: float) -> str:
    return str(epoch) if isinstance(epoch, int) else f"{epoch:.2f}"


def _others(record: Record, known: tuple[str, ...]) -> list[str]:
    """Numbers that a run reports beyond the usual ones, such as a noise scale."""
    return [
        f"{name} {_noise(record, name) if name.startswith('noise_scale') else value_of(name, value)}"
        for name, value in record.items()
        if name not in known
        and not _DETAILS.match(name)
        and isinstance(value, int | float)
        and not isinstance(value, bool)
    ]


def _noise(record: Record, name: str) -> str:
    """``450 (340 to 700)``, ``at least 200`` or ``not known``: as far as the interval, where there is one, tells it."""
    low, high = record.get(f"{name}_low"), record.get(f"{name}_high")
    if low is None:
        return _two_digits(record[name])
    if not low > 0:
        return "not known"
    if high is None:
        return f"at least {_two_digits(low)}"
    return f"{_two_digits(record[name])} ({_two_digits(low)} to {_two_digits(high)})"


def _two_digits(value: float) -> str:
    rounded = float(f"{value:.2g}")
    return f"{rounded:,.0f}" if rounded >= 10 else f"{rounded:g}"
