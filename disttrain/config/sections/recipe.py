"""A recipe: what is trained, and as little as possible about how it is executed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from disttrain.config.sections.base import (
    UNITS,
    Epochs,
    Expected,
    Length,
    Positive,
    Section,
    Total,
    exactly_one,
)
from disttrain.config.sections.batch import Batch
from disttrain.config.sections.fine_tune import Patterns, Stage, Start, checked_stages
from disttrain.config.sections.hooks import Callback, Log
from disttrain.config.sections.methods import Average, BatchNorm, Communication, Every, Gradient, Loss
from disttrain.config.sections.models import Model
from disttrain.config.sections.noise_scale import NoiseSettings, check_measurable
from disttrain.config.sections.optimizers import Optimizer
from disttrain.config.sections.schedules import Schedule, beyond
from disttrain.config.sections.speed import Compile, LossScaling
from disttrain.config.sections.tasks import Task


class Validation(Section):
    """Samples that are kept from training and decide which checkpoint is the best and when to stop."""

    fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(
        description="Of the train set: one end of a fixed permutation of its ids, whatever the seed.", examples=[0.1]
    )


class Data(Section):
    order: Literal["global_shuffle", "partition", "replacement"] = Field(
        "global_shuffle",
        description="global_shuffle: one permutation an epoch, the same on any cluster; partition: fixed parts, each "
        "shuffled by itself; replacement: drawn at random.",
    )
    parts: Positive | None = Field(
        None, description="Of partition; null: the number of ranks the run is started with.", examples=[8]
    )
    workers: Annotated[int, Field(ge=0, le=1024)] = Field(0, description="Processes that read samples, on each rank.")
    prefetch: Positive = Field(2, description="Micro-batches that are read ahead.")
    validation: Validation | None = Field(
        None,
        description="Samples of the train set that validate; null: the task's own validation set, or the test set.",
    )
    train_samples: Positive | None = Field(
        None,
        description="Size the whole train set must have, validation included; lets show work where the data is not.",
        examples=[60000],
    )
    test_samples: Positive | None = Field(None, description="Size the test set must have, likewise.", examples=[10000])

    @field_validator("parts")
    @classmethod
    def _parts(cls, parts: int | None, info: ValidationInfo) -> int | None:
        order = info.data.get("order", "partition")
        if parts is not None and order != "partition":
            raise ValueError(f"goes with order: partition, and order is {order}")
        return parts


class Evaluate(Length):
    """How often (without a length: after every epoch), and in what pieces, the model is evaluated."""

    batch: Positive = Field(1000, description="Samples at once on a rank.")
    train: bool = Field(
        True, description="Also on as many training samples as the test set has, which shows the generalisation gap."
    )
    test: bool = Field(
        True,
        description="Also on the test set, once, at the end; false: not at all. Without a validation set the test set "
        "decides, and is read whatever this says.",
    )

    @model_validator(mode="before")
    @classmethod
    def _every_epoch(cls, given: Any) -> Any:
        if isinstance(given, dict) and all(given.get(unit) is None for unit in UNITS):
            return {**given, "epochs": 1.0}
        return given


class EarlyStopping(Section):
    metric: str | None = Field(
        None,
        description="A metric of the task; null: the one that decides which checkpoint is the best.",
        examples=["accuracy"],
    )
    patience: Positive = Field(description="Evaluations without improvement before the run ends.", examples=[5])
    min_delta: Annotated[float, Field(ge=0.0)] = Field(0.0, description="Least change that counts as an improvement.")


class CheckpointSettings(Section):
    every_steps: Positive | None = Field(
        None, description="In updates; null: only at the end, at the best, and on request.", examples=[500]
    )
    keep: Positive = Field(3, description="How many of the newest are kept.")
    best: bool = Field(True, description="Also save, and keep, the best one.")


class Recipe(Section):
    """Everything about a training run. Unknown keys are mistakes."""

    model_config = ConfigDict(title="disttrain recipe")

    name: (
        Annotated[
            str,
            Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100),
            Expected(
                "a name of at most 100 letters, digits, dots, dashes and underscores, the first a letter or digit"
            ),
        ]
        | None
    ) = Field(None, description="Of the run directory; null: the file's name.", examples=["baseline"])
    task: Task = Field(description="What is trained on, and how losses and metrics are made.")
    model: Model | None = Field(None, description="null: the task's own default.")
    start_from: Start | None = Field(
        None, description="Weights to begin with: a path, or a section.", examples=["runs/pretrained"]
    )
    trainable: Patterns | None = Field(
        None,
        description="Parameters that are trained, by name; the others stay as they are. null: as the model has it.",
        examples=[["head.*"]],
    )
    batch: Batch = Field(description="The global batch, and how much of it a rank takes at once.")
    epochs: Epochs | None = Field(None, description="Length of the run, in passes over the train set.", examples=[90])
    samples: Total | None = Field(None, description="Length of the run, in samples seen.", examples=[115200000])
    updates: Annotated[Total | None, exactly_one(*UNITS)] = Field(
        None, validate_default=True, description="Length of the run, in optimizer updates.", examples=[10000]
    )
    optimizer: Optimizer = Field(description="How weights follow gradients.")
    stages: list[Stage] = Field(
        default_factory=list,
        description="Parts of the run, each with its own trainable parameters; the last to its end.",
        examples=[[{"epochs": 2, "trainable": ["head.*"]}, {"lr_factor": 0.1}]],
    )
    schedule: Schedule = Field(default_factory=Schedule, description="The learning rate over the run.")
    precision: Literal["fp64", "fp32", "tf32", "bf16", "fp16"] = Field(
        "fp32", description="Arithmetic of forward and backward; parameters are float32, under fp64 float64."
    )
    loss_scaling: LossScaling | None = Field(None, description="Of precision: fp16; null: as torch has it.")
    reduced_precision_reductions: bool = Field(
        False, description="Let matrix products in fp16 and bf16 add up in 16 bits on CUDA: quicker, and less exact."
    )
    gradient: Gradient = Field(
        default_factory=Gradient, description="What happens to the mean gradient before the optimizer."
    )
    loss: Loss = Field(default_factory=Loss, description="What is minimised, besides what the task says.")
    compile: Compile | None = Field(None, description="Compile the model with torch.compile; null: do not.")
    memory_format: Literal["contiguous", "channels_last"] = Field(
        "contiguous", description="Of the model's and its inputs' tensors of 4 dimensions, in memory; same numbers."
    )
    activation_checkpointing: list[str] = Field(
        default_factory=list,
        description="Names, or patterns such as 'blocks.*', of modules that keep no activations and are computed again in "
        "backward: less memory, more time, same gradients.",
    )
    batch_norm: BatchNorm | None = Field(None, description="null: as the model has it.")
    dropout: Literal["invariant", "per_rank"] = Field(
        "invariant",
        description="invariant: masks that do not depend on the ranks; per_rank: torch's own, from each rank's generator.",
    )
    average: Average | None = Field(None, description="Of the weights; evaluated in their place.")
    data: Data = Field(default_factory=Data, description="Order, reading and division of the samples.")
    evaluate: Evaluate | None = Field(default_factory=Evaluate, description="null: never.")
    early_stopping: EarlyStopping | None = Field(
        None, description="End the run when a metric no longer improves; null: never."
    )
    checkpoint: CheckpointSettings = Field(
        default_factory=CheckpointSettings, description="When checkpoints are written, and which are kept."
    )
    callbacks: Annotated[list[Callback], Expected("a list of pkg.mod:Class")] = Field(
        default_factory=list,
        description="Objects that are called while training: pkg.mod:Class, or a section with a name and its arguments.",
    )
    log: Log = Field(default_factory=Log, description="What is written while training.")
    communication: Communication = Field(
        default_factory=Communication, description="How gradients travel between ranks."
    )
    noise_scale: NoiseSettings | None = Field(
        None,
        validate_default=True,
        description="Measure the gradient noise scale: how large a batch is worth its samples.",
    )
    numerics: Every | None = Field(None, description="Watch each layer's gradient for vanishing and exploding values.")
    update_angle: Every | None = Field(None, description="Measure the angle between updates and weights, in degrees.")
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(
        0, description="Of initial weights, order, augmentation and noise."
    )

    @field_validator("schedule")
    @classmethod
    def _within_the_run(cls, schedule: Schedule, info: ValidationInfo) -> Schedule:
        found = [problem for unit in UNITS for problem in beyond(schedule, unit, info.data.get(unit))]
        if found:
            raise ValidationError.from_exception_data("schedule", found)
        return schedule

    @field_validator("loss_scaling")
    @classmethod
    def _fp16(cls, loss_scaling: LossScaling | None, info: ValidationInfo) -> LossScaling | None:
        precision = info.data.get("precision", "fp16")
        if loss_scaling is not None and precision != "fp16":
            raise ValueError(f"goes with precision: fp16, and precision is {precision}")
        return loss_scaling

    @field_validator("compile")
    @classmethod
    def _one_backward(cls, compile: Compile | None, info: ValidationInfo) -> Compile | None:
        loss = info.data.get("loss")
        if compile is not None and loss is not None and loss.balance is not None and loss.balance.kind == "gradnorm":
            raise ValueError(
                "loss.balance.kind: gradnorm goes backward several times, and a compiled model can do so once"
            )
        return compile

    @field_validator("optimizer")
    @classmethod
    def _adascale_has_a_reference(cls, optimizer: Optimizer) -> Optimizer:
        if optimizer.lr_scaling in ("adascale", "legw", "sde", "carry") and optimizer.reference_batch is None:
            raise ValueError(
                f"lr_scaling: {optimizer.lr_scaling} needs reference_batch, the batch that lr is meant for"
            )
        return optimizer

    @field_validator("stages")
    @classmethod
    def _stages(cls, stages: list[Stage], info: ValidationInfo) -> list[Stage]:
        optimizer = info.data.get("optimizer")
        return checked_stages(stages, "none" if optimizer is None else optimizer.lr_scaling)

    @field_validator("noise_scale")
    @classmethod
    def _can_be_measured(cls, noise_scale: NoiseSettings | None, info: ValidationInfo) -> NoiseSettings | None:
        check_measurable(noise_scale, info.data)
        return noise_scale

    @field_validator("log")
    @classmethod
    def _ratios(cls, log: Log, info: ValidationInfo) -> Log:
        optimizer = info.data.get("optimizer")
        if log.layer_ratios and optimizer is not None and optimizer.name not in ("lars", "lamb"):
            raise ValueError(f"layer_ratios goes with the optimizers lars and lamb, not with {optimizer.name}")
        return log

    @field_validator("early_stopping")
    @classmethod
    def _needs_evaluations(cls, early_stopping: EarlyStopping | None, info: ValidationInfo) -> EarlyStopping | None:
        if early_stopping is not None and info.data.get("evaluate", ...) is None:
            raise ValueError("needs evaluations, and evaluate is null")
        return early_stopping

    @classmethod
    def load(cls, path: str | Path | None = None, *overrides: str) -> Recipe:
        """Read a recipe file and check all of it; without one, the built-in default.

        Args:
            path: the file.
            overrides: such as ``"optimizer.lr=0.1"``, applied before the checks.

        Raises:
            RecipeError: with every mistake that was found.
        """
        from disttrain.config.reading.load import load_recipe

        return load_recipe(None if path is None else Path(path), overrides)

    @property
    def evaluated_at_once(self) -> int:
        """Samples of an evaluation that go through the model at once, on a rank."""
        return (self.evaluate or Evaluate()).batch

    def save(self, path: str | Path) -> None:
        """Write this recipe as YAML, every default written out, once all of it is checked again.

        Raises:
            RecipeError: settings that were assigned one by one contradict each other.
        """
        from disttrain.config.reading.dump import dump_recipe
        from disttrain.config.reading.load import check_recipe

        checked = check_recipe(self.model_dump(by_alias=True))
        Path(path).write_text(dump_recipe(checked), encoding="utf-8")
