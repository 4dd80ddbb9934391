"""The global batch of the updates to come: as planned, or following what is measured."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from disttrain.config.sections.adaptive import Adaptive, NoiseScalePolicy
from disttrain.data.batch import Batch
from disttrain.data.position import Position
from disttrain.errors import CheckpointError
from disttrain.grads import NoiseScale
from disttrain.methods.base import Context, Method, Report
from disttrain.methods.noise.meter import NoiseMeter
from disttrain.plan.adaptive import DELAY, FEWEST, AdaptivePlan
from disttrain.plan.plan import StepPlan
from disttrain.schedules import BatchLimits, by_noise_scale, by_norm_test

log = logging.getLogger("disttrain")


class BatchSize(Method):
    """The plan's.

    Attributes:
        now: samples of the next global batch, or a function of the samples passed. What a loader has read ahead is right as long
            as this is the same object or number.
        rate: factor of the learning rate.
    """

    def __init__(self, plan: StepPlan) -> None:
        self.now: int | Callable[[int], int] = plan.batch_at
        self.rate = 1.0

    def at(self, samples: int) -> int:
        """The next global batch, after so many samples."""
        return self.now if isinstance(self.now, int) else self.now(samples)


class AdaptiveBatch(BatchSize):
    """Decides every so many updates, from the readings since the decision before, which are the same on any cluster.

    A decision after update u holds from update ``u + 1 + DELAY`` on.
    """

    always = True
    now: int

    def __init__(self, context: Context, settings: Adaptive, plan: AdaptivePlan, noise: NoiseMeter) -> None:
        super().__init__(context.plan)
        self._settings, self._plan, self._noise = settings, plan, noise
        self._recent = NoiseScale()
        noise.follow(lambda *squares, **sizes: self._recent.update(*squares, **sizes), lambda samples: self.now)
        self._first = context.plan.global_batch
        self._number, self._used = 0, self._first
        self._event: dict[str, Any] | None = None
        self._go_on(self._first, self._first, 0)

    def begin_update(self, position: Position) -> None:
        self._number, self._used, self._event = position.updates + 1, self.now, None

    def end_update(self, batch: Batch) -> None:
        if self._number + 1 == self._from:
            self._go_on(self._next, self._next, 0)
        if self._number % self._settings.every == 0:
            self._decide()

    def events(self) -> Iterator[Mapping[str, Any]]:
        if self._event is not None:
            yield self._event

    def report(self) -> Report:
        used = self._used
        return lambda: {"global_batch": used}

    def state_dict(self) -> dict[str, Any]:
        return {"now": self.now, "next": self._next, "from_update": self._from, "recent": self._recent.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        limits, values = self._plan.limits, (state["now"], state["next"], state["from_update"])
        if any(type(value) is not int for value in values) or not all(map(limits.holds, values[:2])):
            raise CheckpointError(
                f"the checkpoint's batch is {values[0]}, and from update {values[2]} on {values[1]}; expected multiples of "
                f"{limits.unit} from {limits.least} to {limits.most}"
            )
        self._go_on(*values)
        self._recent.load_state_dict(state["recent"])

    def _decide(self) -> None:
        self._noise.settle()
        chosen, why = decide(self._settings, self._plan.limits, self.now, self._recent)
        self._recent = NoiseScale()
        if chosen == self.now:
            return
        self._go_on(self.now, chosen, self._number + 1 + DELAY)
        ratio = self._plan.rate(chosen / self._first) / self.rate
        message = f"batch {self.now:,} -> {chosen:,} from update {self._from:,} on: {why}; rate x {ratio:.3g}"
        log.info(message)
        self._event = {
            "event": "batch",
            "step": self._number,
            "message": message,
            "global_batch": chosen,
            "from_update": self._from,
        }

    def _go_on(self, now: int, following: int, begins: int) -> None:
        self.now, self._next, self._from = now, following, begins
        self.rate = self._plan.rate(now / self._first)


def decide(settings: Adaptive, limits: BatchLimits, batch: int, noise: NoiseScale) -> tuple[int, str]:
    """The batch to follow ``batch``, and why; none where there is no reason for another."""
    found = noise.estimate(settings.level) if isinstance(settings, NoiseScalePolicy) else noise.estimate()
    if found.readings < FEWEST:
        return batch, ""
    if isinstance(settings, NoiseScalePolicy):
        above, below = settings.grow_above, settings.shrink_below
        return by_noise_scale(batch, found.low, found.high, limits, grow_above=above, shrink_below=below)
    return by_norm_test(batch, found.trace, found.square_norm, limits, theta=settings.theta)


def make_batch_size(context: Context, noise: NoiseMeter) -> BatchSize:
    """As the recipe asks for."""
    settings, plan = context.recipe.batch.adaptive, context.plan.adaptive
    if settings is None or plan is None:
        return BatchSize(context.plan)
    return AdaptiveBatch(context, settings, plan, noise)
