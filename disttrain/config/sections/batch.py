"""The ``batch`` section."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from disttrain.config.sections.adaptive import Adaptive, NoiseScalePolicy
from disttrain.config.sections.base import AutoOrCount, Positive, Section, exactly_one
from disttrain.config.sections.methods import Growth


class Batch(Section):
    """How many samples an update sees."""

    global_: Positive | None = Field(
        None, alias="global", description="Over all ranks; the same for any number of them.", examples=[512]
    )
    per_rank: Annotated[Positive | None, exactly_one("global_", "per_rank")] = Field(
        None, validate_default=True, description="Weak scaling instead: per rank and micro-batch.", examples=[64]
    )
    accumulation: Positive = Field(1, description="Micro-batches per update; with per_rank only.")
    per_rank_max: AutoOrCount | None = Field(
        None,
        description="Most samples that fit through the model at once on a rank; auto: found when the run starts; null: no limit.",
        examples=["auto"],
    )
    last: Literal["keep", "drop"] = Field("keep", description="The short last batch of an epoch.")
    growth: Growth | None = Field(None, description="A batch that grows during the run, beginning with global.")
    adaptive: Adaptive | None = Field(
        None,
        description="A batch that follows the measured noise scale, beginning with global; needs noise_scale.slice.",
    )

    @property
    def varies(self) -> bool:
        """Whether it changes during the run."""
        return self.growth is not None or self.adaptive is not None

    @property
    def least(self) -> int | None:
        """Smallest global batch of the run; None with ``per_rank``."""
        if isinstance(self.adaptive, NoiseScalePolicy) and self.adaptive.min is not None:
            return self.adaptive.min
        return self.global_

    @field_validator("accumulation")
    @classmethod
    def _accumulation(cls, accumulation: int, info: ValidationInfo) -> int:
        if info.data.get("global_") is not None and accumulation != 1:
            raise ValueError("goes with per_rank; with global it is derived (see per_rank_max)")
        return accumulation

    @field_validator("growth")
    @classmethod
    def _growth(cls, growth: Growth | None, info: ValidationInfo) -> Growth | None:
        if growth is not None and info.data.get("per_rank") is not None:
            raise ValueError("goes with global; with per_rank the batch follows the number of ranks")
        if growth is not None and info.data.get("last", "keep") != "keep":
            raise ValueError("needs last: keep; with a growing batch, drop would leave out other samples in each epoch")
        return growth

    @field_validator("adaptive")
    @classmethod
    def _adaptive(cls, adaptive: Adaptive | None, info: ValidationInfo) -> Adaptive | None:
        batch = info.data.get("global_")
        if adaptive is None:
            return adaptive
        if info.data.get("per_rank") is not None:
            raise ValueError("goes with global; with per_rank the batch follows the number of ranks")
        if info.data.get("last", "keep") != "keep":
            raise ValueError("needs last: keep; with other batches, drop would leave out other samples in each epoch")
        if info.data.get("growth") is not None:
            raise ValueError("leave out either growth, which is planned, or adaptive, which follows what is measured")
        if batch is not None and adaptive.max < batch:
            raise ValueError(f"max is {adaptive.max}; expected at least batch.global, {batch}")
        least = adaptive.min if isinstance(adaptive, NoiseScalePolicy) else None
        if batch is not None and least is not None and least > batch:
            raise ValueError(f"min is {least}; expected at most batch.global, {batch}")
        return adaptive

    @field_validator("per_rank_max")
    @classmethod
    def _per_rank_max(cls, per_rank_max: int | str | None, info: ValidationInfo) -> int | str | None:
        if info.data.get("per_rank") is not None and per_rank_max is not None:
            raise ValueError("goes with global; with per_rank, the micro-batch is per_rank itself")
        return per_rank_max
