"""The sections of how a step is computed: ``compile`` and ``loss_scaling``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from disttrain.config.sections.base import Positive, Section


class Compile(Section):
    """``torch.compile`` of the model, in place: its names, in checkpoints too, stay as they are."""

    mode: Literal["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"] = Field(
        "default",
        description="torch's. The two that tune may choose other kernels after a restart, which changes the last bits.",
    )
    dynamic: bool | None = Field(
        None,
        examples=[False],
        description="true: one graph for all shapes; false: one for each; null: false, but true where the batch changes "
        "(batch.growth, batch.adaptive).",
    )
    backend: Annotated[str, Field(min_length=1)] = Field(
        "inductor",
        description="A name that torch knows. aot_eager compiles at once and gains nothing: it shows whether a model can be "
        "compiled.",
    )

    @field_validator("backend")
    @classmethod
    def _mode(cls, backend: str, info: ValidationInfo) -> str:
        mode = info.data.get("mode", "default")
        if mode != "default" and backend != "inductor":
            raise ValueError(f"mode: {mode} is inductor's, and backend is {backend}")
        return backend


class LossScaling(Section):
    """How fp16's loss scale finds its size: the settings of torch's GradScaler."""

    initial: Annotated[float, Field(gt=0.0, le=2.0**40)] = Field(65536.0, description="The scale to begin with.")
    growth_factor: Annotated[float, Field(gt=1.0, le=2.0**10)] = Field(
        2.0, description="What the scale is multiplied with after growth_interval updates without an overflow."
    )
    backoff_factor: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(
        0.5, description="What it is multiplied with after an overflow; the update is then tried again."
    )
    growth_interval: Positive = Field(2000, description="In updates.")
