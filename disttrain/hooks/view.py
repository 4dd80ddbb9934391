"""What a callback sees of a run, and the one thing that it may ask for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from disttrain.config import Recipe
from disttrain.data.position import Position
from disttrain.engine.base import Engine
from disttrain.engine.world import World
from disttrain.plan.plan import StepPlan


class Progress(Protocol):
    """How far a run is."""

    position: Position
    metrics: dict[str, float]
    best: float | None
    best_step: int | None


class Running(Protocol):
    """What a run has that a view shows."""

    recipe: Recipe
    engine: Engine
    model: nn.Module
    optimizer: torch.optim.Optimizer
    plan: StepPlan

    @property
    def progress(self) -> Progress: ...


class RunView:
    """A run, to be read. Nothing in it may be changed: weights, random states and settings are the same with and without
    callbacks, and the run is the same on any number of ranks.

    Attributes:
        run_dir: the run directory.
        line: the latest training line (``loss``, ``grad_norm``, ...); empty before the first. One is written every
            ``log.every_steps`` updates, an update late: reading a loss at once would make the host wait for the device.
        stop_reason: why a callback has ended the run, the same on all ranks; empty while nobody has.
    """

    def __init__(self, run: Running, run_dir: Path) -> None:
        self._run = run
        self.run_dir = run_dir
        self.line: Mapping[str, Any] = {}
        self.stop_reason = ""
        self.asked = ""

    def stop(self, reason: str = "asked by a callback") -> None:
        """Ask for the end of the run: after this update on all ranks, evaluated and saved like one that is complete."""
        self.asked = self.asked or reason or "asked by a callback"

    @property
    def step(self) -> int:
        """Updates made."""
        return self._run.progress.position.updates

    @property
    def total_steps(self) -> int:
        """Updates that the recipe asks for; with ``batch.adaptive`` those that ``batch.global`` would make."""
        return self._run.plan.total_updates

    @property
    def samples(self) -> int:
        """Samples trained on since the start of the run, over all ranks."""
        return self._run.progress.position.samples

    @property
    def epoch(self) -> float:
        """Passes over the train set, such as 1.25."""
        position = self._run.progress.position
        return position.epoch + position.offset / self._run.plan.train_samples

    @property
    def lr(self) -> float:
        """The learning rate of the latest update, of the first parameter group."""
        return float(self._run.optimizer.param_groups[0]["lr"])

    @property
    def loss(self) -> float | None:
        """The mean loss over a global batch, of the latest training line."""
        return self.line.get("loss")

    @property
    def metrics(self) -> Mapping[str, float]:
        """What the latest evaluation found: the test set's metrics under their own names, others as ``train_NAME``,
        ``validation_NAME``. The same on all ranks; empty before the first."""
        return dict(self._run.progress.metrics)

    @property
    def best(self) -> float | None:
        """The best value so far of the metric that counts."""
        return self._run.progress.best

    @property
    def best_step(self) -> int | None:
        """The update that it was seen at."""
        return self._run.progress.best_step

    @property
    def model(self) -> nn.Module:
        """The model on this rank's device, without what exchanges its gradients; its weights as trained, not averaged."""
        return self._run.model

    @property
    def recipe(self) -> Recipe:
        """A copy of the recipe."""
        return self._run.recipe.model_copy(deep=True)

    @property
    def world(self) -> World:
        """Which of how many ranks this is."""
        return self._run.engine.world
