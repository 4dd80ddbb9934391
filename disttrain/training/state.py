"""What a run is made of, and what of it changes while it trains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from disttrain.config import Recipe
from disttrain.data.position import Position
from disttrain.engine.base import Engine
from disttrain.methods.averaging import Average
from disttrain.methods.batch_norm import RunningStatistics
from disttrain.methods.gradient import Methods
from disttrain.methods.loss_weights import LossWeights
from disttrain.methods.noise_scale import NoiseMeter
from disttrain.plan.plan import StepPlan
from disttrain.precision import Precision
from disttrain.tasks.base import Task


@dataclass(slots=True)
class Progress:
    """The small part of a run's state: plain numbers that go into a checkpoint as they are.

    Attributes:
        position: where the data stands, and what has been trained on.
        evaluated_at: samples seen at the latest evaluation; -1 before the first.
        metrics: what that evaluation found.
        best: the best value so far of the metric that counts, and the update it was seen at.
        stale: evaluations since then.
        seconds: time spent training, over all restarts.
        scheduled: samples as the schedule counts them: those seen, but under AdaScale.
        noise_scale: the running estimate, where it is measured.
        balance: what the weights of several losses have learned, where they learn.
    """

    position: Position = field(default_factory=Position)
    evaluated_at: int = -1
    metrics: dict[str, float] = field(default_factory=dict)
    best: float | None = None
    best_step: int | None = None
    stale: int = 0
    seconds: float = 0.0
    scheduled: float = 0.0
    noise_scale: dict[str, Any] | None = None
    balance: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        return {
            "position": self.position.to_dict(),
            "evaluated_at": self.evaluated_at,
            "metrics": self.metrics,
            "best": self.best,
            "best_step": self.best_step,
            "stale": self.stale,
            "seconds": self.seconds,
            "scheduled": self.scheduled,
            "noise_scale": self.noise_scale,
            "balance": self.balance,
        }

    @staticmethod
    def from_dict(state: dict[str, Any]) -> Progress:
        return Progress(**{**state, "position": Position.from_dict(state["position"])})


@dataclass(slots=True)
class Run:
    """Everything one rank holds of a training run.

    Attributes:
        model: what :meth:`Engine.prepare` returned; ``engine.unwrap`` gives the task's own module.
        params: the parameters that are trained.
        balance: makes one loss out of several.
        methods: what happens to losses and gradients on their way to the optimizer.
        statistics: keeps batch norm's running statistics.
        average: of the weights.
        noise: measures the gradient noise scale; None: it is not measured.
    """

    recipe: Recipe
    plan: StepPlan
    engine: Engine
    task: Task
    model: nn.Module
    params: Sequence[nn.Parameter]
    optimizer: torch.optim.Optimizer
    precision: Precision
    progress: Progress
    balance: LossWeights
    methods: Methods
    statistics: RunningStatistics
    average: Average
    noise: NoiseMeter | None
