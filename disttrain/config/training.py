"""The ``optimizer`` and ``schedule`` sections: how it is trained."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Discriminator, Field, Tag, ValidationInfo, field_validator, model_validator

from disttrain.config.base import (
    CUSTOM,
    UNITS,
    Epochs,
    Fraction,
    Importable,
    Length,
    Open,
    Positive,
    Section,
    Total,
    by_name,
    exactly_one,
)

Rate = Annotated[float, Field(gt=0.0)]
Decay = Annotated[float, Field(ge=0.0)]


def _pair(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


class Sgd(Section):
    """torch.optim.SGD."""

    name: Literal["sgd"]
    lr: Rate = Field(description="Learning rate at the reference batch.")
    reference_batch: Positive | None = Field(
        None, description="Batch that lr is meant for; null: lr is taken as it is."
    )
    lr_scaling: Literal["linear", "sqrt", "none"] = Field("linear", description="How lr follows the global batch.")
    momentum: Fraction = 0.9
    nesterov: bool = False
    dampening: Fraction = 0.0
    weight_decay: Decay = 0.0
    weight_decay_exclude: Literal["bias_and_norm", "none"] = Field("none", description="What is not decayed.")

    @model_validator(mode="after")
    def _nesterov(self) -> Self:
        if self.nesterov and (self.momentum == 0.0 or self.dampening != 0.0):
            raise ValueError("nesterov: true needs momentum > 0 and dampening 0")
        return self


class AdamW(Section):
    """torch.optim.AdamW."""

    name: Literal["adamw"]
    lr: Rate = Field(description="Learning rate at the reference batch.")
    reference_batch: Positive | None = Field(
        None, description="Batch that lr is meant for; null: lr is taken as it is."
    )
    lr_scaling: Literal["linear", "sqrt", "none"] = Field("linear", description="How lr follows the global batch.")
    betas: Annotated[tuple[Fraction, Fraction], BeforeValidator(_pair)] = (0.9, 0.999)
    eps: Annotated[float, Field(gt=0.0)] = 1e-8
    weight_decay: Decay = 0.01
    weight_decay_exclude: Literal["bias_and_norm", "none"] = Field("none", description="What is not decayed.")


class CustomOptimizer(Open):
    """``pkg.mod:Class``; further keys are its arguments."""

    name: Importable
    lr: Rate
    reference_batch: Positive | None = None
    lr_scaling: Literal["linear", "sqrt", "none"] = "linear"
    weight_decay_exclude: Literal["bias_and_norm", "none"] = "none"


Optimizer = Annotated[
    Annotated[Sgd, Tag("sgd")] | Annotated[AdamW, Tag("adamw")] | Annotated[CustomOptimizer, Tag(CUSTOM)],
    Discriminator(by_name),
]


class Warmup(Length):
    """The rise to the peak learning rate, with its length."""

    kind: Literal["linear", "exponential"] = "linear"
    start: Annotated[float, Field(ge=0.0, le=1.0)] = Field(
        0.0, validate_default=True, description="First learning rate, as a share of the peak."
    )

    @field_validator("start")
    @classmethod
    def _rises(cls, start: float, info: ValidationInfo) -> float:
        if info.data.get("kind") == "exponential" and start == 0.0:
            raise ValueError("an exponential warmup cannot start at 0; give start, for example 0.01")
        return start


class Milestones(Section):
    """Points of the run, increasing, in one unit."""

    epochs: Annotated[list[Epochs], Field(min_length=1)] | None = None
    samples: Annotated[list[Total], Field(min_length=1)] | None = None
    updates: Annotated[Annotated[list[Total], Field(min_length=1)] | None, exactly_one(*UNITS)] = Field(
        None, validate_default=True
    )

    @field_validator(*UNITS)
    @classmethod
    def _increasing(cls, points: list[Any] | None) -> list[Any] | None:
        for before, after in pairwise(points or []):
            if after <= before:
                raise ValueError(f"milestones must increase, and {after:g} follows {before:g}")
        return points


class Constant(Section):
    """No decay."""

    kind: Literal["constant"] = "constant"


class _Ending(Section):
    end: Annotated[float, Field(ge=0.0)] = Field(
        0.0, description="Learning rate at the end of the run, as a share of the peak."
    )


class Linear(_Ending):
    """A straight line."""

    kind: Literal["linear"]


class Cosine(_Ending):
    """Half a cosine."""

    kind: Literal["cosine"]


class Polynomial(_Ending):
    """A power of the share that is left."""

    kind: Literal["polynomial"]
    power: Annotated[float, Field(gt=0.0)] = 2.0


class Exponential(Section):
    """The same factor for every sample."""

    kind: Literal["exponential"]
    end: Annotated[float, Field(gt=0.0)] = Field(
        0.01, description="Learning rate at the end of the run, as a share of the peak."
    )


class Step(Section):
    """A factor every so often."""

    kind: Literal["step"]
    every: Length
    gamma: Annotated[float, Field(gt=0.0)] = 0.1


class MultiStep(Section):
    """A factor at each milestone."""

    kind: Literal["multistep"]
    milestones: Milestones
    gamma: Annotated[float, Field(gt=0.0)] = 0.1


def _kind(value: Any) -> str | None:
    kind = value.get("kind") if isinstance(value, dict) else getattr(value, "kind", None)
    return kind if isinstance(kind, str) else None


DecayKind = Annotated[
    Annotated[Constant, Tag("constant")]
    | Annotated[Linear, Tag("linear")]
    | Annotated[Cosine, Tag("cosine")]
    | Annotated[Polynomial, Tag("polynomial")]
    | Annotated[Exponential, Tag("exponential")]
    | Annotated[Step, Tag("step")]
    | Annotated[MultiStep, Tag("multistep")],
    Discriminator(_kind),
]


class Schedule(Section):
    """The learning rate as a function of samples seen."""

    warmup: Warmup | None = None
    decay: DecayKind = Field(default_factory=Constant)
