"""The ``model`` section."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from disttrain.config.sections.base import CUSTOM, Expected, Fraction, Open, Positive, Section, by_name


class _Normed(Section):
    ghost_size: Annotated[int, Field(ge=2)] = Field(
        32, description="Of norm: ghost_batch: samples that share statistics."
    )
    stats_update: Literal["mean", "sequential"] = Field(
        "mean", description="Of norm: ghost_batch: how running statistics are folded."
    )
    init: Literal["xavier", "he", "orthogonal"] | None = Field(
        None, description="Of the weights; null: the model's own."
    )


class Mlp(_Normed):
    """Fully connected layers."""

    name: Literal["mlp"]
    hidden: Annotated[list[Positive], Field(min_length=1)] = Field(
        [512, 512], description="Widths of the hidden layers."
    )
    norm: Literal["none", "batch", "ghost_batch", "layer"] = Field(
        "none", description="Normalisation between the layers."
    )
    dropout: Fraction = Field(0.0, description="Share of hidden values that are dropped in training.")


class ConvNet(_Normed):
    """A small convolutional network for images of about 28x28."""

    name: Literal["convnet"]
    widths: Annotated[list[Positive], Field(min_length=1)] = Field([32, 64, 128], description="Channels of each stage.")
    norm: Literal["group", "batch", "ghost_batch", "layer", "instance", "none"] = Field(
        "group", description="Normalisation between the layers."
    )
    dropout: Fraction = Field(0.0, description="Share of values that are dropped before the last layer, in training.")


class _ResNet(_Normed):
    norm: Literal["batch", "ghost_batch", "group", "layer", "instance"] = Field(
        "batch", description="Normalisation between the layers."
    )
    zero_init_last_gamma: bool = Field(True, description="Each residual branch begins as zero (Goyal et al. 2017).")


class ResNet18(_ResNet):
    """ResNet-18 (He et al. 2015, arXiv:1512.03385), v1.5."""

    name: Literal["resnet18"]


class ResNet44(_ResNet):
    """ResNet-44 for images of about 32x32 (He et al. 2015, arXiv:1512.03385, section 4.2)."""

    name: Literal["resnet44"]


class ResNet50(_ResNet):
    """ResNet-50 (He et al. 2015, arXiv:1512.03385), v1.5."""

    name: Literal["resnet50"]


class Transformer(Section):
    """A causal transformer."""

    name: Literal["transformer"]
    layers: Positive = Field(4, description="Number of blocks.")
    heads: Positive = Field(4, description="Attention heads of each block.")
    width: Positive = Field(128, description="Divisible by heads.")
    sequence_length: Positive | None = Field(None, description="Longest input; null: the task's.", examples=[256])
    feed_forward: Literal["gelu", "swiglu", "geglu", "reglu"] = Field(
        "gelu", description="Kind of the feed-forward part: a plain one with gelu, or a gated one."
    )
    init: Literal["xavier", "he", "orthogonal"] | None = Field(
        None, description="Of the weights; null: the model's own."
    )
    dropout: Fraction = Field(0.0, description="Share of values that are dropped in training.")

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width is {self.width}, not divisible by heads {self.heads}")
        return self


class CustomModel(Open):
    """``timm:NAME``, ``torchvision:NAME`` or ``pkg.mod:callable``; further keys are its arguments."""

    name: Annotated[
        str,
        Field(pattern=r"^((timm|torchvision):[\w./:@-]+|[A-Za-z_][\w.]*:[A-Za-z_][\w.]*)$"),
        Expected("timm:NAME | torchvision:NAME | pkg.mod:callable"),
    ] = Field(examples=["my_package.models:make_model"])


Model = Annotated[
    Annotated[Mlp, Tag("mlp")]
    | Annotated[ConvNet, Tag("convnet")]
    | Annotated[ResNet18, Tag("resnet18")]
    | Annotated[ResNet44, Tag("resnet44")]
    | Annotated[ResNet50, Tag("resnet50")]
    | Annotated[Transformer, Tag("transformer")]
    | Annotated[CustomModel, Tag(CUSTOM)],
    Discriminator(by_name),
]
