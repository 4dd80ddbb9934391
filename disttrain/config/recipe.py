"""A recipe: what is trained, and as little as possible about how it is executed."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from disttrain.config.base import Fraction, Length, Positive, Section, exactly_one
from disttrain.config.tasks import Model, Task, Transformer
from disttrain.config.training import MultiStep, Optimizer, Schedule


class Batch(Section):
    """How many samples an update sees."""

    global_: Positive | None = Field(
        None, alias="global", description="Over all ranks; the same for any number of them."
    )
    per_rank: Positive | None = Field(None, description="Weak scaling instead: per rank and micro-batch.")
    accumulation: Positive = Field(1, description="Micro-batches per update; with per_rank only.")
    per_rank_max: Positive | None = Field(
        None, description="Most samples that fit through the model at once on a rank."
    )
    last: Literal["keep", "drop"] = Field("keep", description="The short last batch of an epoch.")

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        exactly_one(self, "global_", "per_rank")
        if self.per_rank is not None and self.per_rank_max is not None:
            raise ValueError("per_rank_max goes with global; with per_rank, the micro-batch is per_rank itself")
        if self.per_rank is None and self.accumulation != 1:
            raise ValueError("accumulation goes with per_rank; with global it is derived (see per_rank_max)")
        return self


class Gradient(Section):
    clip_norm: Annotated[float, Field(gt=0.0)] | None = Field(None, description="Largest norm of the mean gradient.")


class Loss(Section):
    label_smoothing: Fraction = 0.0


class Data(Section):
    order: Literal["global_shuffle", "partition", "replacement"] = "global_shuffle"
    parts: Positive | None = Field(None, description="Of partition; null: the number of ranks the run is started with.")
    workers: Annotated[int, Field(ge=0)] = Field(0, description="Processes that read samples, on each rank.")
    prefetch: Positive = Field(2, description="Micro-batches that are read ahead.")

    @model_validator(mode="after")
    def _parts(self) -> Self:
        if self.parts is not None and self.order != "partition":
            raise ValueError(f"parts belongs to order: partition, and order is {self.order}")
        return self


class Evaluate(Length):
    """How often, and in what pieces, the test set is evaluated."""

    batch: Positive = Field(1000, description="Samples at once on a rank.")


class EarlyStopping(Section):
    metric: str = Field("accuracy", description="A metric of the task.")
    patience: Positive = Field(description="Evaluations without improvement before the run ends.")
    min_delta: Annotated[float, Field(ge=0.0)] = 0.0


class CheckpointSettings(Section):
    every_steps: Positive | None = Field(
        None, description="In updates; null: only at the end, at the best, and on request."
    )
    keep: Positive = Field(3, description="How many of the newest are kept.")
    best: bool = Field(True, description="Also save, and keep, the best one.")


class Log(Section):
    every_steps: Positive = Field(10, description="In updates.")
    tensorboard: bool = True
    sample_ids: bool = Field(False, description="Write the ids of every update's samples to metrics.jsonl.")


class Communication(Section):
    bucket_mb: Annotated[float, Field(gt=0.0)] = Field(25.0, description="Size of the gradient buckets, in MiB.")


class Recipe(Section):
    """Everything about a training run. Unknown keys are mistakes."""

    model_config = ConfigDict(title="disttrain recipe")

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] | None = Field(
        None, description="Of the run directory; null: the file's name."
    )
    task: Task
    model: Model | None = Field(None, description="null: the task's own default.")
    batch: Batch
    epochs: Annotated[float, Field(gt=0.0)] | None = None
    samples: Positive | None = None
    updates: Positive | None = None
    optimizer: Optimizer
    schedule: Schedule = Field(default_factory=Schedule)
    precision: Literal["fp64", "fp32", "tf32", "bf16", "fp16"] = "fp32"
    gradient: Gradient = Field(default_factory=Gradient)
    loss: Loss = Field(default_factory=Loss)
    data: Data = Field(default_factory=Data)
    evaluate: Evaluate | None = Field(default_factory=lambda: Evaluate(epochs=1.0))
    early_stopping: EarlyStopping | None = None
    checkpoint: CheckpointSettings = Field(default_factory=CheckpointSettings)
    log: Log = Field(default_factory=Log)
    communication: Communication = Field(default_factory=Communication)
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        exactly_one(self, "epochs", "samples", "updates")
        wrong = [*_too_long(self), *_undefined(self)]
        if wrong:
            raise ValueError("; ".join(wrong))
        return self


def _too_long(recipe: Recipe) -> list[str]:
    """Parts of the schedule that lie beyond the end of the run, where both are given in the same unit."""
    found = []
    for unit in ("epochs", "samples", "updates"):
        total = getattr(recipe, unit)
        warmup = getattr(recipe.schedule.warmup, unit, None)
        if total is not None and warmup is not None and warmup > total:
            found.append(f"schedule.warmup.{unit} is {warmup:g}, longer than the run of {total:g}")
        decay = recipe.schedule.decay
        points = getattr(decay.milestones, unit) if isinstance(decay, MultiStep) else None
        if total is not None and points and points[-1] > total:
            found.append(f"schedule.decay.milestones.{unit} has {points[-1]:g}, beyond the run of {total:g}")
    return found


def _undefined(recipe: Recipe) -> list[str]:
    """Settings that need another one."""
    found = []
    if recipe.early_stopping is not None and recipe.evaluate is None:
        found.append("early_stopping needs evaluations, and evaluate is null")
    model = recipe.model
    if isinstance(model, Transformer) and model.width % model.heads:
        found.append(f"model.width is {model.width}, not divisible by model.heads {model.heads}")
    return found
