"""The ``optimizer`` section: for each optimizer what a recipe may say, and the class that takes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from disttrain.config.sections.base import CUSTOM, Fraction, Importable, Open, Positive, Section, by_name, pair
from disttrain.config.sections.carry import Carry, checked
from disttrain.config.sections.fine_tune import Patterns

Rate = Annotated[float, Field(gt=0.0)]
Decay = Annotated[float, Field(ge=0.0)]
Betas = Annotated[tuple[Fraction, Fraction], BeforeValidator(pair)]
Exclude = Literal["bias_and_norm", "none"]
PlainScaling = Literal["linear", "sqrt", "legw", "adascale", "none"]
SgdScaling = Literal["linear", "sqrt", "legw", "carry", "adascale", "none"]
AdamScaling = Literal["linear", "sqrt", "legw", "sde", "carry", "adascale", "none"]

# One kernel for all: the quickest of torch's paths on CPU and CUDA alike.
_FUSED: Mapping[str, Any] = {"fused": True}
_SCALING: Any = Field("linear", description="How lr follows the global batch.")
_DECAYED: Any = Field("none", description="What is not decayed.")
_SPARED: Any = Field("bias_and_norm", description="What is not decayed.")
_ADAPTED: Any = Field("bias_and_norm", description="What gets no trust ratio.")


class Larc(Section):
    """Layer-wise adaptive rate control around the optimizer: LARS's trust ratio on the gradient, with ``clip`` never above 1."""

    trust_coefficient: Rate = Field(
        0.02, description="Ratio of the norms of update and weights that a layer may reach."
    )
    eps: Decay = Field(1e-8, description="Added to the denominator of the trust ratio.")
    clip: bool = Field(
        True, description="Whether the layer's rate is never above lr (LARC); false: LARS's ratio as it is."
    )
    exclude: Exclude = _ADAPTED


class ParameterGroup(Section):
    """Settings of parameters that are chosen by name. Each comes from the first group that matches and gives it."""

    parameters: Patterns = Field(description="Names of parameters, shell style (*, ?, [abc]).", examples=[["head.*"]])
    lr_factor: Rate | None = Field(None, description="What their learning rate is times.", examples=[10.0])
    weight_decay: Decay | None = Field(
        None, description="Theirs, in the place of the optimizer's and of weight_decay_exclude.", examples=[0.0]
    )

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.lr_factor is None and self.weight_decay is None:
            raise ValueError("expected lr_factor, weight_decay or both")
        return self


class _Optimizer(Section):
    """What all have. Fields that are not ``OURS`` are arguments of the class ``made_by``, with ``fixed`` besides."""

    OURS: ClassVar = {
        *("name", "lr", "reference_batch", "lr_scaling", "carry"),
        *("weight_decay_exclude", "adapt_exclude", "larc", "groups", "layer_decay"),
    }
    made_by: ClassVar[str] = ""
    fixed: ClassVar[Mapping[str, Any]] = {}
    law: ClassVar[Literal["linear", "sqrt"] | None] = "sqrt"
    """How the learning rate follows the batch where nobody says; linear where an update is a mean that the batch does not
    rescale. None: not known."""

    name: str = Field(description="Which optimizer.")
    lr: Rate = Field(description="Learning rate at the reference batch.", examples=[0.1])
    reference_batch: Positive | None = Field(
        None, description="Batch that lr is meant for; null: lr is taken as it is.", examples=[256]
    )
    lr_scaling: AdamScaling = _SCALING
    groups: list[ParameterGroup] = Field(
        default_factory=list,
        description="Learning rates and weight decay of their own, by parameter name.",
        examples=[[{"parameters": ["head.*"], "lr_factor": 10.0}]],
    )
    layer_decay: Annotated[float, Field(gt=0.0, le=1.0)] | None = Field(
        None,
        description="Factor on the learning rate from each numbered block to the one below it; the head has 1.",
        examples=[0.75],
    )


class _Carried(_Optimizer):
    carry: Carry | None = Field(
        None,
        description="Parts of lr_scaling: carry; null: all for which there is a law.",
        examples=[{"noise_batch": 900}],
    )

    @model_validator(mode="after")
    def _carry(self) -> Self:
        checked(self)
        return self


class _Momentum(_Optimizer):
    lr_scaling: SgdScaling = _SCALING
    momentum: Fraction = Field(0.9, description="Share of the last update that the next one keeps.")
    nesterov: bool = Field(False, description="Look ahead along the momentum (Nesterov's method).")

    @model_validator(mode="after")
    def _nesterov(self) -> Self:
        if self.nesterov and (self.momentum == 0.0 or getattr(self, "dampening", 0.0) != 0.0):
            raise ValueError("nesterov: true needs momentum > 0 and dampening 0")
        return self


class _Adam(_Carried):
    betas: Betas = Field((0.9, 0.999), description="Decays of the means of gradients and of squared gradients.")
    eps: Rate = Field(1e-8, description="Added to the denominator of an update.")
    weight_decay: Decay = Field(
        0.01, description="Decoupled: share of a weight that each update takes off, times the learning rate."
    )


class Sgd(_Momentum, _Carried):
    """torch.optim.SGD."""

    made_by = "torch.optim:SGD"
    fixed = _FUSED
    law = "linear"

    name: Literal["sgd"]
    dampening: Fraction = Field(0.0, description="Share of the gradient that momentum leaves out.")
    weight_decay: Decay = Field(0.0, description="Added to the gradient as weight_decay times the weight (L2).")
    weight_decay_exclude: Exclude = _DECAYED
    larc: Larc | None = Field(None, description="A layer-wise rate around this optimizer; null: none.")


class AdamW(_Adam):
    """torch.optim.AdamW."""

    made_by = "torch.optim:AdamW"
    fixed = _FUSED

    name: Literal["adamw"]
    weight_decay_exclude: Exclude = _DECAYED


class RMSprop(_Carried):
    """torch.optim.RMSprop."""

    made_by = "torch.optim:RMSprop"

    name: Literal["rmsprop"]
    lr_scaling: SgdScaling = _SCALING
    alpha: Fraction = Field(0.99, description="Decay of the mean of squared gradients.")
    eps: Rate = Field(1e-8, description="Added to the denominator of an update.")
    momentum: Fraction = Field(0.0, description="Share of the last update that the next one keeps.")
    centered: bool = Field(False, description="Divide by an estimate of the variance, not of the mean square.")
    weight_decay: Decay = Field(0.0, description="Added to the gradient as weight_decay times the weight (L2).")
    weight_decay_exclude: Exclude = _DECAYED


class Lars(_Momentum):
    """LARS (You, Gitman and Ginsburg 2017, arXiv:1708.03888)."""

    made_by = "disttrain.optim:LARS"
    law = "linear"

    name: Literal["lars"]
    lr_scaling: PlainScaling = _SCALING
    weight_decay: Decay = Field(
        0.0, description="Added to the gradient as weight_decay times the weight, inside the trust ratio."
    )
    trust_coefficient: Rate = Field(0.001, description="Ratio of the norms of update and weights at learning rate 1.")
    eps: Decay = Field(0.0, description="Added to the denominator of the trust ratio.")
    lr_in_momentum: bool = Field(True, description="true: as in the paper and MLPerf; false: as in torch's SGD.")
    momentum_correction: bool = Field(False, description="Goyal et al. 2017, remark 3; with lr_in_momentum.")
    clip: bool = Field(False, description="LARC: the layer's rate is never above lr.")
    weight_decay_exclude: Exclude = _SPARED
    adapt_exclude: Exclude = _ADAPTED


class Lamb(_Adam):
    """LAMB (You et al. 2020, arXiv:1904.00962v5)."""

    made_by = "disttrain.optim:LAMB"

    name: Literal["lamb"]
    eps: Rate = Field(1e-6, description="Added to the denominator of an update.")
    bias_correction: bool = Field(True, description="Adam's correction of both means in the first updates.")
    pre_normalization: Literal["none", "clip", "always"] = Field(
        "none", description="Of the gradient of the whole model: always (NVLAMB), or clipped to max_grad_norm (apex)."
    )
    max_grad_norm: Rate = Field(1.0, description="With pre_normalization: clip.")
    phi_bounds: Annotated[tuple[Decay, Rate], BeforeValidator(pair)] | None = Field(
        None, description="Smallest and largest norm of a layer's weights in the trust ratio.", examples=[[0.01, 10.0]]
    )
    trust_clip: Rate | None = Field(None, description="Largest trust ratio (LAMBC).", examples=[1.0])
    weight_decay_exclude: Exclude = _SPARED
    adapt_exclude: Exclude = _ADAPTED


class NovoGrad(_Adam):
    """NovoGrad (Ginsburg et al. 2019, arXiv:1905.11286)."""

    made_by = "disttrain.optim:NovoGrad"

    name: Literal["novograd"]
    betas: Betas = Field((0.95, 0.98), description="Decays of the mean of gradients and of each layer's squared norm.")
    weight_decay: Decay = Field(
        0.0, description="Decoupled: added to the normalised gradient as weight_decay times the weight."
    )
    grad_averaging: bool = Field(False, description="Weigh a new gradient by 1 - beta1, as Adam does.")
    amsgrad: bool = Field(False, description="Divide by the largest norm so far.")
    weight_decay_exclude: Exclude = _SPARED


class Muon(_Adam):
    """Muon (Liu et al. 2025, arXiv:2502.16982) for matrices within the model, AdamW for all else."""

    OURS: ClassVar = {*_Optimizer.OURS, "adamw"}
    made_by = "disttrain.optim:Muon"

    name: Literal["muon"]
    lr_scaling: SgdScaling = _SCALING
    momentum: Fraction = Field(0.95, description="Share of the mean gradient that the next update keeps, of matrices.")
    nesterov: bool = Field(True, description="Look ahead along the momentum (Nesterov's method).")
    ns_steps: Positive = Field(5, description="Newton-Schulz iterations that make an update orthogonal.")
    newton_schulz: Literal["full", "bf16"] = Field(
        "full",
        description="Their precision: that of the weights, or bfloat16, which grows differences of rounding to 1 %.",
    )
    betas: Betas = Field((0.9, 0.95), description="AdamW's decays of the means of gradients and of squared gradients.")
    weight_decay: Decay = Field(
        0.1, description="Decoupled: share of a weight that each update takes off, times the learning rate."
    )
    weight_decay_exclude: Exclude = _SPARED
    adamw: Patterns | None = Field(
        None,
        description="Names of matrices that AdamW updates; null: embeddings, positions and the head. It has vectors anyway.",
        examples=[["tokens.*", "head.*"]],
    )


class BatchInvariantAdam(_Adam):
    """AdamW with squared gradients of fixed slices of the batch (Wang and Aitchison 2024, arXiv:2402.18824)."""

    OURS: ClassVar = {*_Optimizer.OURS, "slice"}
    made_by = "disttrain.optim:BatchInvariantAdam"
    law = "linear"

    name: Literal["batch_invariant_adam"]
    lr_scaling: Literal["linear", "carry", "none"] = Field(
        "carry", description="How the rate follows the global batch; carry: rate times k, betas to the power of k."
    )
    reference_batch: Positive = Field(description="Batch that lr and betas are meant for.", examples=[32])
    slice: Positive = Field(
        description="Samples of a slice, whose gradients are squared: all updates go through the model in slices. A multiple of "
        "the ghost size, the same at every batch.",
        examples=[32],
    )
    weight_decay_exclude: Exclude = _DECAYED


class CustomOptimizer(_Optimizer, Open):
    """``pkg.mod:Class``; further keys are its arguments."""

    law = None

    name: Importable = Field(examples=["my_package.optim:MyOptimizer"])
    lr_scaling: PlainScaling = _SCALING
    weight_decay_exclude: Exclude = _DECAYED


Optimizer = Annotated[
    Annotated[Sgd, Tag("sgd")]
    | Annotated[AdamW, Tag("adamw")]
    | Annotated[RMSprop, Tag("rmsprop")]
    | Annotated[Lars, Tag("lars")]
    | Annotated[Lamb, Tag("lamb")]
    | Annotated[NovoGrad, Tag("novograd")]
    | Annotated[Muon, Tag("muon")]
    | Annotated[BatchInvariantAdam, Tag("batch_invariant_adam")]
    | Annotated[CustomOptimizer, Tag(CUSTOM)],
    Discriminator(by_name),
]
