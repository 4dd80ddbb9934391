"""The ``schedule`` section: the learning rate over the run."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, ValidationInfo, field_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from disttrain.config.sections.base import UNITS, Epochs, Fraction, Length, Section, Total, by_kind, exactly_one

Share = Annotated[float, Field(ge=0.0, le=1.0)]


class Warmup(Length):
    """The rise to the peak learning rate, with its length.

    ``gradual`` is the straight line of Goyal et al. (2017): it starts at the learning rate of the reference batch.
    """

    kind: Literal["linear", "exponential", "gradual"] = Field(
        "linear", description="How the learning rate rises; gradual starts at that of the reference batch."
    )
    start: Share = Field(0.0, validate_default=True, description="First learning rate, as a share of the peak.")

    @field_validator("start")
    @classmethod
    def _rises(cls, start: float, info: ValidationInfo) -> float:
        kind = info.data.get("kind")
        if kind == "exponential" and start == 0.0:
            raise ValueError("an exponential warmup cannot start at 0; give start, for example 0.01")
        if kind == "gradual" and start != 0.0:
            raise ValueError("a gradual warmup starts at the learning rate of the reference batch; leave start out")
        return start


class Milestones(Section):
    """Points of the run, increasing, in one unit."""

    epochs: Annotated[list[Epochs], Field(min_length=1)] | None = Field(
        None, description="In passes over the train set.", examples=[[30, 60, 80]]
    )
    samples: Annotated[list[Total], Field(min_length=1)] | None = Field(
        None, description="In samples seen.", examples=[[1000000, 2000000]]
    )
    updates: Annotated[Annotated[list[Total], Field(min_length=1)] | None, exactly_one(*UNITS)] = Field(
        None, validate_default=True, description="In optimizer updates.", examples=[[10000, 20000]]
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

    kind: Literal["constant"] = Field("constant", description="No decay.")


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
    power: Annotated[float, Field(gt=0.0)] = Field(2.0, description="Of the share of the run that is left.")


class Exponential(Section):
    """The same factor for every sample."""

    kind: Literal["exponential"]
    end: Annotated[float, Field(gt=0.0)] = Field(
        0.01, description="Learning rate at the end of the run, as a share of the peak."
    )


class Wsd(_Ending):
    """Warmup-stable-decay: constant, and down in the last part of the run."""

    kind: Literal["wsd"]
    share: Annotated[float, Field(gt=0.0, le=1.0)] = Field(0.2, description="Of the whole run, that the decay takes.")
    length: Length | None = Field(
        None, description="Of the decay, which ends with the run; null: as share says.", examples=[{"epochs": 2}]
    )
    shape: Literal["linear", "sqrt", "cosine", "exponential"] = Field(
        "linear", description="Of the decay; sqrt: 1 - sqrt(t), steep at first; exponential needs end above 0."
    )

    @field_validator("shape")
    @classmethod
    def _ends_above_zero(cls, shape: str, info: ValidationInfo) -> str:
        if shape == "exponential" and info.data.get("end", 1.0) == 0.0:
            raise ValueError("an exponential decay cannot end at 0; give end, for example 0.1")
        return shape


class Step(Section):
    """A factor every so often."""

    kind: Literal["step"]
    every: Length = Field(description="From one fall to the next.")
    gamma: Annotated[float, Field(gt=0.0)] = Field(0.1, description="The factor.")


class MultiStep(Section):
    """A factor at each milestone."""

    kind: Literal["multistep"]
    milestones: Milestones = Field(description="Where the learning rate falls.")
    gamma: Annotated[float, Field(gt=0.0)] = Field(0.1, description="The factor at each of them.")


class CosineRestarts(_Ending):
    """Half a cosine, again and again (SGDR)."""

    kind: Literal["cosine_restarts"]
    period: Length = Field(description="Of the first cycle.")
    multiplier: Annotated[float, Field(ge=1.0)] = Field(1.0, description="Each cycle is so much longer than the last.")


class _Cyclic(Section):
    half_cycle: Length = Field(description="From the lowest learning rate to the highest.")
    low: Share = Field(0.1, description="Lowest learning rate, as a share of the peak.")


class Triangular(_Cyclic):
    """Up and down between two learning rates."""

    kind: Literal["triangular"]


class Triangular2(_Cyclic):
    """Up and down between two learning rates, each further cycle half as high."""

    kind: Literal["triangular2"]


class OneCycle(Section):
    """One rise and one long fall over the whole run, with momentum (or beta1) going the other way; without a warmup."""

    kind: Literal["one_cycle"]
    rise: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(0.3, description="Share of the run.")
    start: Share = Field(0.04, description="First learning rate, as a share of the peak.")
    end: Share = Field(4e-6, description="Last learning rate, as a share of the peak.")
    momentum_high: Fraction = Field(0.95, description="Momentum (or beta1) at the lowest learning rate.")
    momentum_low: Fraction = Field(0.85, description="Momentum (or beta1) at the highest learning rate.")


DecayKind = Annotated[
    Annotated[Constant, Tag("constant")]
    | Annotated[Linear, Tag("linear")]
    | Annotated[Cosine, Tag("cosine")]
    | Annotated[Polynomial, Tag("polynomial")]
    | Annotated[Exponential, Tag("exponential")]
    | Annotated[Wsd, Tag("wsd")]
    | Annotated[Step, Tag("step")]
    | Annotated[MultiStep, Tag("multistep")]
    | Annotated[CosineRestarts, Tag("cosine_restarts")]
    | Annotated[Triangular, Tag("triangular")]
    | Annotated[Triangular2, Tag("triangular2")]
    | Annotated[OneCycle, Tag("one_cycle")],
    Discriminator(by_kind),
]


class Schedule(Section):
    """The learning rate as a function of samples seen."""

    warmup: Warmup | None = Field(None, description="A rise at the start of the run; null: none.")
    decay: DecayKind = Field(default_factory=Constant, description="The course after that, over the whole run.")
    regime_adaptation: bool = Field(
        False,
        description="Train longer (Hoffer et al. 2017): lengths in epochs and samples grow by batch / reference_batch, "
        "so that the number of updates is that of the reference batch.",
    )

    @field_validator("decay")
    @classmethod
    def _one_cycle_warms_up(cls, decay: Any, info: ValidationInfo) -> Any:
        if isinstance(decay, OneCycle) and info.data.get("warmup") is not None:
            raise ValueError("one_cycle has a rise of its own; leave schedule.warmup out")
        return decay


def beyond(schedule: Schedule, unit: str, total: float | None) -> list[InitErrorDetails]:
    """Parts of the schedule that lie beyond the end of the run; known only where both are given in the same unit."""
    if total is None:
        return []
    found: list[tuple[tuple[str, ...], float]] = []
    warmup = getattr(schedule.warmup, unit, None)
    if warmup is not None and warmup > total:
        found.append((("warmup", unit), warmup))
    decay = schedule.decay
    points = getattr(decay.milestones, unit) if isinstance(decay, MultiStep) else None
    if points and points[-1] > total:
        found.append((("decay", "multistep", "milestones", unit), points[-1]))
    return [
        InitErrorDetails(
            type=PydanticCustomError(
                "contradiction", "{text}", {"text": f"{value:g} is beyond the run of {total:g} {unit}"}
            ),
            loc=loc,
            input=value,
        )
        for loc, value in found
    ]
