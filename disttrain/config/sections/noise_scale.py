"""The ``noise_scale`` section."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from disttrain.config.sections.base import Expected, Positive
from disttrain.config.sections.methods import Every

GroupName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=60)]
Patterns = Annotated[list[str], Field(min_length=1)]


class NoiseSettings(Every):
    """How the gradient noise scale is measured."""

    slice: Positive | None = Field(
        None,
        description="On updates that measure, the global batch goes through the model in slices of so many samples, a multiple "
        "of the ghost size, whose gradients are compared: the same reading on any cluster. null: the micro-batches there are.",
        examples=[32],
    )
    groups: Annotated[dict[GroupName, Patterns], Expected("names, each with a list of patterns of parameters")] = Field(
        default_factory=dict,
        description="Noise scales of parts of the model besides: names, each with patterns of parameters; logged as "
        "noise_scale/NAME.",
        examples=[{"embedding": ["*embedding*"], "blocks": ["blocks.*"]}],
    )
    estimator: Literal["gradients", "norm_layers"] = Field(
        "gradients",
        description="gradients: of all parameters, of parts of the batch against the whole; norm_layers: of single samples, "
        "of the parameters of LayerNorm and RMSNorm only, a proxy (arXiv:2411.00999) that needs no cut.",
    )

    @field_validator("estimator")
    @classmethod
    def _no_slice(cls, estimator: str, info: ValidationInfo) -> str:
        if estimator == "norm_layers" and info.data.get("slice") is not None:
            raise ValueError("norm_layers compares single samples with the batch; leave out slice")
        return estimator


def check_measurable(noise_scale: NoiseSettings | None, recipe: Mapping[str, Any]) -> None:
    """Refuse what cannot be measured with the rest of ``recipe``, as far as that is known.

    Raises:
        ValueError: why.
    """
    gradient, communication, optimizer = (recipe.get(key) for key in ("gradient", "communication", "optimizer"))
    adascale = optimizer is not None and optimizer.lr_scaling == "adascale"
    if noise_scale is None and not adascale:
        return
    what = "noise_scale" if noise_scale is not None else "optimizer.lr_scaling: adascale"
    if gradient is not None and gradient.noise is not None and gradient.noise.kind == "multiplicative":
        raise ValueError(f"{what} measures the gradient's noise, and gradient.noise adds to it; leave one of them out")
    if communication is not None and communication.reduction == "adasum":
        raise ValueError(f"{what} needs the mean gradient, and communication.reduction: adasum makes another one")
    if noise_scale is None or noise_scale.estimator == "gradients":
        return
    if adascale:
        raise ValueError("estimator: norm_layers is a proxy, and optimizer.lr_scaling: adascale needs gradients")
    if recipe.get("compile") is not None:
        raise ValueError(
            "estimator: norm_layers looks into the model's layers, and a compiled model has none: use gradients"
        )
