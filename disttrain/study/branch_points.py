"""From where to where branches go: a run's checkpoints, and ends that batches of every size come to."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from disttrain.checkpoint import list_checkpoints
from disttrain.data.position import Position
from disttrain.errors import InputError
from disttrain.inference.choice import Which, find
from disttrain.plan.plan import StepPlan

_NUMBER = r"\d{1,16}(?:\.\d{0,16})?|\.\d{1,16}"


@dataclass(frozen=True, slots=True)
class Point:
    """A checkpoint and the samples between which its branches lie; the largest batch divides the way between them."""

    step: int
    path: Path
    start: int
    end: int


At = list[Which] | Literal["all"]
"""Which of a run's checkpoints."""


def parse_at(text: str) -> At:
    """What ``--at`` asks for; see :class:`disttrain.study.branch.Question`.

    Raises:
        InputError: the words mean nothing.
    """
    match text:
        case "all":
            return text
        case "newest" | "best":
            return [text]
    if not re.fullmatch(r"[0-9]{1,16}(,[0-9]{1,16})*", text):
        raise InputError(f"--at {text}: expected newest, best, all, or updates such as 100,200")
    return [*sorted({int(step) for step in text.split(",")})]


def find_points(run_dir: Path, at: At, length: int, plan: StepPlan, factor: int) -> list[Point]:
    """The checkpoints that are asked for, oldest first, each verified.

    Args:
        length: of the branches, in samples.
        factor: the largest multiple of the batch.

    Raises:
        InputError: the run has none.
        CheckpointError: there is none such, or one does not load.
    """
    there = sorted(list_checkpoints(run_dir))
    if not there:
        raise InputError(f"{run_dir} has no checkpoint to branch from")
    points = []
    for each in there if at == "all" else at:
        checkpoint, path, _ = find(run_dir, each)
        position = Position.from_dict(checkpoint.state["progress"]["position"])
        end = end_of(position, length, plan, factor)
        points.append(Point(checkpoint.step, path, position.samples, end))
    return points


def length_of(text: str | None, plan: StepPlan) -> int:
    """In samples.

    Raises:
        InputError: it is no length.
    """
    if text is None:
        return max(plan.total_samples // 20, 1)
    form = re.fullmatch(rf"(samples|epochs|updates)=({_NUMBER})|({_NUMBER}) ?(samples|epochs|updates)", text)
    found = 0
    if form is not None:
        unit, number = form[1] or form[4], float(form[2] or form[3])
        found = round(number * {"samples": 1, "epochs": plan.epoch.samples, "updates": plan.global_batch}[unit])
    if not 0 < found <= 10**15:
        raise InputError(f"--length {text}: expected samples=20000, 0.1epochs or 500updates")
    return found


def end_of(position: Position, length: int, plan: StepPlan, factor: int) -> int:
    """At least ``length`` further on, where branches at all batches stand after an update: every epoch ends with a batch of what
    is left of it, and from there, or from here, it is whole numbers of the largest batch."""
    largest, epoch = plan.global_batch * factor, plan.epoch.samples
    ends = position.samples + (epoch - position.offset)  # of this epoch
    wanted = position.samples + length
    begins = position.samples if wanted <= ends else ends + (wanted - ends) // epoch * epoch
    if wanted > ends:
        ends = begins + epoch
    return min(begins + -(-(wanted - begins) // largest) * largest, ends)
