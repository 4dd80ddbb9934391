"""What a run is made of, and what of it changes while it trains."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import nn

from disttrain.checkpoint.fit import check_form, continuing
from disttrain.data.position import Position
from disttrain.errors import CheckpointError
from disttrain.hooks.callbacks import Callbacks
from disttrain.inference.prepared import Prepared
from disttrain.methods.make import Parts
from disttrain.methods.trainable import Trainable
from disttrain.plan.plan import StepPlan


@dataclass(slots=True)
class Progress:
    """How far a run is: plain numbers, the same on all ranks.

    Attributes:
        position: where the data stands, and what has been trained on.
        evaluated_at: samples seen at the latest evaluation; -1 before the first.
        metrics: what that evaluation found.
        best: the best value so far of the metric that counts, and the update it was seen at.
        stale: evaluations since then.
        scheduled: samples as the schedule counts them: those seen, but under AdaScale.
    """

    position: Position = field(default_factory=Position)
    evaluated_at: int = -1
    metrics: dict[str, float] = field(default_factory=dict)
    best: float | None = None
    best_step: int | None = None
    stale: int = 0
    scheduled: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self)} | {"position": self.position.to_dict()}

    @staticmethod
    def from_dict(state: Any) -> Progress:
        """The inverse of :meth:`to_dict`.

        Raises:
            CheckpointError: a key is missing or unknown, or a value cannot be what it says.
        """
        if not isinstance(state, Mapping) or state.keys() != _VALID.keys() | {"position"}:
            raise CheckpointError("the progress of the run is not what disttrain writes")
        for name, valid in _VALID.items():
            if not valid(state[name]):
                raise CheckpointError(f"the progress of the run: {name} is {str(state[name])[:60]}")
        if not isinstance(state["position"], Mapping):
            raise CheckpointError("the progress of the run: position is not what disttrain writes")
        return Progress(**{**state, "position": Position.from_dict(state["position"])})


def _count(value: Any) -> bool:
    return type(value) is int and value >= 0


_VALID: dict[str, Callable[[Any], bool]] = {
    "evaluated_at": lambda v: _count(v) or v == -1,
    "metrics": lambda v: isinstance(v, dict) and all(isinstance(x, int | float) for x in v.values()),
    "best": lambda v: v is None or isinstance(v, int | float),
    "best_step": lambda v: v is None or _count(v),
    "stale": _count,
    "scheduled": lambda v: isinstance(v, int | float) and math.isfinite(v) and v >= 0,
}


@dataclass(slots=True)
class Run(Prepared):
    """Everything one rank holds of a training run.

    Attributes:
        wrapped: the model with the gradient exchange attached; training forwards go through it.
        trainable: which parameters each stage trains, and ``stage`` the index of the one that the run is in.
        params: the parameters that are trained in it.
        methods: what the recipe adds to a plain step.
        notes: events of the set-up, to be logged when a new run begins.
        agreed: what all ranks have alike: recipe, code, packages and data.
        exchange_state: what this rank's gradient exchange goes on from; empty once it is rehearsed and has it.
        callbacks: who watches it.
    """

    plan: StepPlan
    trainable: Trainable
    stage: int
    wrapped: nn.Module
    params: list[nn.Parameter]
    optimizer: torch.optim.Optimizer
    methods: Parts
    notes: list[dict[str, Any]] = field(default_factory=list)
    agreed: dict[str, dict[str, Any]] = field(default_factory=dict)
    progress: Progress = field(default_factory=Progress)
    exchange_state: dict[str, Any] = field(default_factory=dict)
    callbacks: Callbacks = field(default_factory=Callbacks)

    def state_dict(self) -> dict[str, Any]:
        """All that is the same on every rank and changes while training, but for the model: nested dicts and lists of
        tensors and plain values."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "methods": self.methods.all.state_dict(),
            "precision": self.precision.state_dict(),
            "progress": self.progress.to_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned.

        Raises:
            CheckpointError: it is of another run, or not what disttrain writes.
        """
        mine = self.state_dict()
        if state.keys() != mine.keys():
            raise CheckpointError(
                f"the checkpoint's state is of {', '.join(map(str, state))[:80]}; expected {', '.join(mine)}"
            )
        self.progress = Progress.from_dict(state["progress"])
        at, epoch = self.progress.position, self.plan.epoch.samples
        if at.offset >= self.plan.train_samples or at.samples != at.epoch * epoch + at.offset:
            raise CheckpointError(
                f"the checkpoint stands at sample {at.offset} of epoch {at.epoch} after {at.samples}, with {epoch} an epoch"
            )
        check_form(mine["precision"], state["precision"], "precision")
        kept = state["methods"] if isinstance(state["methods"], dict) else {}
        check_form(mine["methods"], {name: kept[name] for name in mine["methods"] if name in kept}, "methods")
        parts: dict[str, Any] = {"optimizer": self.optimizer, "methods": self.methods.all, "precision": self.precision}
        for name, part in parts.items():
            with continuing(f"the checkpoint's {name}"):
                part.load_state_dict(state[name])
        if self.methods.all.state_dict().keys() != kept.keys():
            raise CheckpointError(
                f"the checkpoint's methods are {', '.join(map(str, kept))[:80]}, not those of this recipe"
            )
