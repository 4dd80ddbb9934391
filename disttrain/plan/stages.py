"""The stages of a run: where each begins, in samples, and what it does to the learning rate."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from disttrain.config import Recipe
from disttrain.config.sections.fine_tune import Stage
from disttrain.errors import InputError
from disttrain.plan.lengths import Duration, EpochLength
from disttrain.schedules import Schedule


@dataclass(frozen=True, slots=True)
class StagePlan:
    """A stage, resolved: it has the updates that begin when at least ``start`` samples were seen, and fewer than the next
    stage's.

    Attributes:
        start: in samples seen.
        trainable: patterns of the parameters that it trains; None: those that the model has made so.
        lr_factor: what the learning rate of the schedule is times.
        warmup_samples: how long the rate rises to that from 0.
        keeps_optimizer: whether parameters that were trained before keep the optimizer's state.
    """

    start: int
    trainable: tuple[str, ...] | None
    lr_factor: float
    warmup_samples: int
    keeps_optimizer: bool

    def factor(self, samples: float) -> float:
        """What the schedule's learning rate is times after ``samples`` samples of the run."""
        risen = (samples - self.start) / self.warmup_samples if self.warmup_samples else 1.0
        return self.lr_factor * min(risen, 1.0)


def resolve_stages(recipe: Recipe, epoch: EpochLength) -> tuple[StagePlan, ...]:
    """At least one: a recipe without stages is a single one.

    Raises:
        InputError: a stage is too short for an update.
    """
    found: list[StagePlan] = []
    start = 0
    for i, stage in enumerate(recipe.stages or [Stage()]):
        chosen = stage.trainable if stage.trainable is not None else recipe.trainable
        warmup = 0 if stage.warmup is None else _after(start, stage.warmup, epoch)
        patterns = None if chosen is None else tuple(chosen)
        found.append(StagePlan(start, patterns, stage.lr_factor, warmup, stage.optimizer == "keep"))
        if i < len(recipe.stages) - 1:
            length = _after(start, stage, epoch)
            if epoch.updates_after(start + length) == epoch.updates_after(start):
                raise InputError(
                    f"stages: no update begins in the {length} samples of stage {i + 1}; expected a longer one"
                )
            start += length
    return tuple(found)


def stage_at(stages: Sequence[StagePlan], samples: float) -> int:
    """Index of the stage of an update that begins after ``samples`` samples."""
    return bisect_right(stages, samples, key=lambda stage: stage.start) - 1


def is_first(stage: StagePlan, epoch: EpochLength, samples: int) -> bool:
    """Whether the update that begins after ``samples`` samples is the first of its ``stage``."""
    return epoch.updates_after(stage.start) == epoch.updates_after(samples)


def unreached(stages: Sequence[StagePlan], total_samples: int) -> list[int]:
    """Numbers, from 1, of the stages that a run of so many samples never comes to."""
    return [number for number, stage in enumerate(stages, start=1) if stage.start >= total_samples]


def staged(schedule: Schedule, stages: Sequence[StagePlan]) -> Schedule:
    """``schedule`` times the factor of each stage."""
    return lambda samples: schedule(samples) * stages[stage_at(stages, samples)].factor(samples)


def _after(start: int, length: Duration, epoch: EpochLength) -> int:
    """Samples of a length that begins after ``start`` samples; updates are counted from the first that begins there."""
    if length.updates is None:
        return epoch.in_samples(length)
    return epoch.samples_after(epoch.updates_after(start) + length.updates) - start
