"""The section ``batch.adaptive``: a batch that follows what is measured."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from disttrain.config.sections.base import Positive, Section


class _Adaptive(Section):
    max: Positive = Field(description="Largest global batch.", examples=[8192])
    every: Positive = Field(
        100, description="Updates from one decision to the next; each is made by the readings since the one before."
    )
    factor: Annotated[float, Field(gt=1.0, le=1000.0)] = Field(
        2.0,
        description="What a decision multiplies the batch with at most, or divides it by; one slice more or less is allowed.",
    )
    law: Literal["auto", "linear", "sqrt", "none"] = Field(
        "auto",
        description="How the learning rate follows the batch, from batch.global on; auto: linear with sgd, lars and "
        "batch_invariant_adam, sqrt with the others.",
    )


class NoiseScalePolicy(_Adaptive):
    """The batch follows the interval of the noise scale: it grows where the lower end is large, and shrinks where the upper end
    is small."""

    policy: Literal["noise_scale"] = Field(description="By the interval of the noise scale.")
    min: Positive | None = Field(None, description="Smallest global batch; null: batch.global.", examples=[64])
    grow_above: Annotated[float, Field(gt=0.0)] = Field(
        2.0, description="The batch grows where the lower end of the interval is above so many times the batch."
    )
    shrink_below: Annotated[float, Field(gt=0.0)] = Field(
        0.5, description="It shrinks where the upper end is below so many times the batch."
    )
    level: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(
        0.95, description="Of the interval: a share of them that holds the noise scale."
    )

    @model_validator(mode="after")
    def _no_to_and_fro(self) -> Self:
        if self.shrink_below * self.factor > self.grow_above:
            raise ValueError(
                f"a batch that has just grown {self.factor:g} x could shrink by the same reading: expected grow_above of at "
                f"least factor x shrink_below = {self.factor * self.shrink_below:g}; got {self.grow_above:g}"
            )
        return self


class NormTest(_Adaptive):
    """The batch grows where its gradient is too noisy for its length: the norm test."""

    policy: Literal["norm_test"] = Field(
        description="By the norm test (Byrd et al. 2012): grows where trace / batch > theta^2 |G|^2, as far as that asks for."
    )
    theta: Annotated[float, Field(gt=0.0, le=10**6)] = Field(
        1.0, description="Largest ratio of the noise of the batch's gradient to the gradient's own length."
    )


def by_policy(value: Any) -> str | None:
    """The tag of a section that has a policy."""
    policy = value.get("policy") if isinstance(value, dict) else getattr(value, "policy", None)
    return policy if isinstance(policy, str) else None


Adaptive = Annotated[
    Annotated[NoiseScalePolicy, Tag("noise_scale")] | Annotated[NormTest, Tag("norm_test")], Discriminator(by_policy)
]
