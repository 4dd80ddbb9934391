"""The sections of the large-batch methods: ``batch.growth``, ``gradient``, ``loss``, ``average``, ``batch_norm``."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Discriminator, Field, Tag, ValidationInfo, field_validator, model_validator

from disttrain.config.sections.base import Expected, Fraction, Length, Positive, Section, by_kind
from disttrain.config.sections.optimizers import Decay, Rate

CLIPS = ("clip_norm", "clip_value", "clip_layer_norm", "clip_adaptive")


class InsteadOfDecay(Section):
    """Grow the batch where, and as much as, the learning rate would have decayed; then decay."""

    kind: Literal["instead_of_decay"]
    max: Positive = Field(
        description="Largest global batch; from there on the learning rate decays alone.", examples=[16384]
    )
    keep: Literal["lr_over_batch", "lr_over_sqrt_batch"] = Field(
        "lr_over_batch",
        description="What stays as it is without growth: lr_over_batch (Smith et al. 2018, arXiv:1711.00489) leaves the "
        "learning rate as it is while the batch grows; lr_over_sqrt_batch (Seesaw, arXiv:2510.14717) lets it fall by the "
        "square root of the decay.",
    )


class LinearGrowth(Length):
    """From ``batch.global`` to ``end`` along a straight line over a length."""

    kind: Literal["linear"]
    end: Positive = Field(description="Global batch at the end of the ramp.", examples=[4096])
    multiple_of: Positive = Field(1, description="Batches are multiples of this.")


class GrowthStage(Length):
    """From this length on, counted from the start of the run, the global batch is ``batch``."""

    batch: Positive = Field(description="Global batch from there on.", examples=[1024])


class StagedGrowth(Section):
    """A global batch for each stage."""

    kind: Literal["stages"]
    stages: Annotated[list[GrowthStage], Field(min_length=1)] = Field(
        description="In order; before the first, the batch is batch.global."
    )


class LateSwitch(Section):
    """``batch.global`` for most of the run, and ``batch`` for the rest (late switching: Wang et al. 2026, arXiv:2602.14208)."""

    kind: Literal["late"]
    batch: Positive = Field(description="Global batch at the end of the run.", examples=[4096])
    share: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(0.25, description="Of the run's samples, that it takes.")


Growth = Annotated[
    Annotated[InsteadOfDecay, Tag("instead_of_decay")]
    | Annotated[LinearGrowth, Tag("linear")]
    | Annotated[StagedGrowth, Tag("stages")]
    | Annotated[LateSwitch, Tag("late")],
    Discriminator(by_kind),
]


class MultiplicativeNoise(Section):
    """Random weights of the samples' losses (Hoffer et al. 2017, arXiv:1705.08741): the noise of a smaller batch."""

    kind: Literal["multiplicative"]
    match_batch: Positive = Field(description="The batch whose gradient covariance is wanted.", examples=[256])


class AnnealedNoise(Section):
    """Gaussian noise on the gradient (Neelakantan et al. 2015, arXiv:1511.06807): variance eta / (1 + t) ** gamma."""

    kind: Literal["annealed"]
    eta: Rate = Field(0.01, description="Variance at the first update.")
    gamma: Decay = Field(0.55, description="Exponent by which the variance falls.")


Noise = Annotated[
    Annotated[MultiplicativeNoise, Tag("multiplicative")] | Annotated[AnnealedNoise, Tag("annealed")],
    Discriminator(by_kind),
]


class Gradient(Section):
    """What happens to the mean gradient between the reduction and the optimizer."""

    clip_norm: Rate | None = Field(None, description="Largest norm of the mean gradient.", examples=[1.0])
    clip_value: Rate | None = Field(None, description="Largest absolute value of an element.", examples=[0.5])
    clip_layer_norm: Rate | None = Field(None, description="Largest norm of each tensor's gradient.", examples=[1.0])
    clip_adaptive: Rate | None = Field(
        None, description="Largest norm of each unit's gradient, as a share of its weights' (AGC).", examples=[0.01]
    )
    norm_type: Annotated[float | Literal["inf"], Expected("a number of at least 1, or inf")] = Field(
        2.0, description="p of the norm that clip_norm and clip_layer_norm limit; inf: the largest element."
    )
    noise: Noise | None = Field(None, description="Added to the gradient, or to the weights of the losses; null: none.")

    @field_validator("norm_type")
    @classmethod
    def _norm(cls, norm_type: float | Literal["inf"], info: ValidationInfo) -> float | Literal["inf"]:
        if float(norm_type) < 1.0:
            raise ValueError(f"got {norm_type}; expected a number of at least 1, or inf")
        if norm_type != 2.0 and all(info.data.get(name) is None for name in ("clip_norm", "clip_layer_norm")):
            raise ValueError("goes with clip_norm or clip_layer_norm")
        return norm_type

    @model_validator(mode="after")
    def _one_clip(self) -> Self:
        given = [name for name in CLIPS if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"expected at most one of {', '.join(CLIPS)}; got {' and '.join(given)}")
        return self


class Penalty(Section):
    """A penalty on the weights of some layers, added to the gradient once per update."""

    parameters: Annotated[list[str], Field(min_length=1)] = Field(
        description="Names, or patterns such as 'head.*', of parameters.", examples=[["head.*"]]
    )
    l1: Decay = Field(0.0, description="Adds l1 * sum |w| to the loss.")
    l2: Decay = Field(0.0, description="Adds l2 / 2 * sum w^2 to the loss.")

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.l1 == 0.0 and self.l2 == 0.0:
            raise ValueError("expected l1 or l2 above 0")
        return self


class UncertaintyBalance(Section):
    """Weights of several losses from learned variances (Kendall, Gal and Cipolla 2018, arXiv:1705.07115)."""

    kind: Literal["uncertainty"]
    lr: Rate = Field(
        0.01, description="Of Adam, which learns the log variances; the network's schedule leaves it alone."
    )


class GradNormBalance(Section):
    """Weights that make the gradients of several losses equally large in a layer they share (GradNorm, Chen et al. 2018,
    arXiv:1711.02257)."""

    kind: Literal["gradnorm"]
    parameters: Annotated[list[str], Field(min_length=1)] = Field(
        description="Names, or patterns such as 'body.6.*', of the shared layer's parameters: the paper takes the last one.",
        examples=[["body.6.*"]],
    )
    alpha: Decay = Field(1.5, description="How much losses that lag behind are pulled.")
    lr: Rate = Field(0.025, description="Step of the weights.")


Balance = Annotated[
    Annotated[UncertaintyBalance, Tag("uncertainty")] | Annotated[GradNormBalance, Tag("gradnorm")],
    Discriminator(by_kind),
]


class Loss(Section):
    """What is minimised."""

    label_smoothing: Fraction = Field(0.0, description="Share of a label that is spread over all classes.")
    mixup: Decay = Field(0.0, description="alpha of mixup's Beta distribution; 0: off. Image classification only.")
    cutmix: Decay = Field(0.0, description="alpha of cutmix's Beta distribution; 0: off. Image classification only.")
    weights: dict[str, float] | None = Field(
        None, description="Of the losses, for tasks that have several.", examples=[{"boxes": 2.0, "classes": 1.0}]
    )
    balance: Balance | None = Field(None, description="Learn the weights instead, for tasks that have several losses.")
    penalties: list[Penalty] = Field(
        default_factory=list,
        description="On selected parameters.",
        examples=[[{"parameters": ["head.*"], "l2": 0.0001}]],
    )

    @field_validator("balance")
    @classmethod
    def _weights_or_balance(cls, balance: Balance | None, info: ValidationInfo) -> Balance | None:
        if balance is not None and info.data.get("weights") is not None:
            raise ValueError("leave out either weights, which are fixed, or balance, which learns them")
        return balance


class Ema(Section):
    """Exponential moving average of the weights, with its memory in samples, so that it does not depend on the batch."""

    kind: Literal["ema"]
    half_life: Length = Field(description="After it, a weight counts half as much.")


class Swa(Section):
    """Uniform average of the weights (stochastic weight averaging, Izmailov et al. 2018, arXiv:1803.05407)."""

    kind: Literal["swa"]
    start: Length = Field(description="Averaging begins here, counted from the start of the run.")
    every: Length = Field(description="Between two samples of the weights.")


Average = Annotated[Annotated[Ema, Tag("ema")] | Annotated[Swa, Tag("swa")], Discriminator(by_kind)]


class GhostNorm(Section):
    """Every batch norm layer of the model becomes ghost batch norm (Hoffer et al. 2017)."""

    kind: Literal["ghost"]
    ghost_size: Annotated[int, Field(ge=2)] = Field(32, description="Samples that share statistics.")
    stats_update: Literal["mean", "sequential"] = Field("mean", description="How running statistics are folded.")


class SyncNorm(Section):
    """Every batch norm layer takes its statistics over all ranks' micro-batches."""

    kind: Literal["sync"]


class RankNorm(Section):
    """Batch norm over each rank's micro-batch, as torch does it; the result depends on the number of ranks."""

    kind: Literal["per_rank"]


BatchNorm = Annotated[
    Annotated[GhostNorm, Tag("ghost")] | Annotated[SyncNorm, Tag("sync")] | Annotated[RankNorm, Tag("per_rank")],
    Discriminator(by_kind),
]


class Communication(Section):
    """How gradients travel."""

    bucket_mb: Annotated[float, Field(gt=0.0)] = Field(25.0, description="Size of the gradient buckets, in MiB.")
    compression: Literal["none", "fp16", "bf16", "powersgd"] = Field(
        "none", description="Of gradients on the wire: fp16 on every engine, bf16 and powersgd on ddp."
    )
    powersgd_rank: Positive = Field(2, description="Of powersgd's factors.")
    reduction: Literal["mean", "adasum"] = Field("mean", description="adasum: Horovod's adaptive sum.")

    @field_validator("reduction")
    @classmethod
    def _adasum(cls, reduction: str, info: ValidationInfo) -> str:
        if reduction == "adasum" and info.data.get("compression", "none") not in ("none", "fp16"):
            raise ValueError("adasum goes with compression none or fp16")
        return reduction


class Every(Section):
    """Something measured every so many updates."""

    every_steps: Positive = Field(10, description="In updates.")
