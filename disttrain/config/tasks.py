"""The ``task`` section: what is trained on."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from disttrain.config.base import CUSTOM, Expected, Fraction, Importable, Open, Positive, Section, by_name


class ImageAugment(Section):
    """Random changes to small images, a function of (seed, epoch, sample id)."""

    shift: Annotated[int, Field(ge=0)] = Field(0, description="Shift by up to so many pixels, filled with zeros.")
    flip: bool = Field(False, description="Mirror half of the images.")


class Digits(Section):
    """scikit-learn's bundled handwritten digits: 8x8, 10 classes, no download."""

    name: Literal["digits"]


class FashionMnist(Section):
    """Fashion-MNIST: 28x28, 10 classes, IDX files."""

    name: Literal["fashion_mnist"]
    root: str | None = Field(
        None, description="Directory of the IDX files; null: fashion-mnist below DISTTRAIN_DATA or data/."
    )
    augment: ImageAugment = Field(default_factory=ImageAugment)


class Mnist(Section):
    """MNIST: 28x28, 10 classes, IDX files."""

    name: Literal["mnist"]
    root: str | None = Field(None, description="Directory of the IDX files; null: mnist below DISTTRAIN_DATA or data/.")
    augment: ImageAugment = Field(default_factory=ImageAugment)


class ImageFolder(Section):
    """Images in ``root/{train,test}/CLASS/``: random resized crops and flips for training, centre crops for testing."""

    name: Literal["image_folder"]
    root: str = Field(description="Directory that holds train/ and test/ (or val/).")
    image_size: Positive = Field(224, description="Side of the square that goes into the model, in pixels.")


class Text(Section):
    """Language modelling on a text file (bytes) or a .npy file of tokens."""

    name: Literal["text"]
    root: str = Field(description="A text file, or a one-dimensional .npy file of unsigned integers.")
    sequence_length: Positive = Field(128, description="Tokens that are predicted in a sample.")
    vocab_size: Positive | None = Field(None, description="Number of different tokens; null: 256, one for each byte.")
    test_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(
        0.1, description="Share of the file's end kept for testing."
    )


class Synthetic(Section):
    """Made-up images and labels, for benchmarks."""

    name: Literal["synthetic"]
    shape: Annotated[list[Positive], Field(min_length=1, max_length=4)] = Field(
        [3, 224, 224], description="Of one sample."
    )
    classes: Annotated[int, Field(ge=2)] = 1000
    train_samples: Positive = 8192
    test_samples: Positive = 1024


class CustomTask(Open):
    """``pkg.mod:Class``: a task of your own; further keys are its arguments."""

    name: Importable


Task = Annotated[
    Annotated[Digits, Tag("digits")]
    | Annotated[FashionMnist, Tag("fashion_mnist")]
    | Annotated[Mnist, Tag("mnist")]
    | Annotated[ImageFolder, Tag("image_folder")]
    | Annotated[Text, Tag("text")]
    | Annotated[Synthetic, Tag("synthetic")]
    | Annotated[CustomTask, Tag(CUSTOM)],
    Discriminator(by_name),
]


class Mlp(Section):
    """Fully connected layers."""

    name: Literal["mlp"]
    hidden: Annotated[list[Positive], Field(min_length=1)] = Field(
        [512, 512], description="Widths of the hidden layers."
    )
    norm: Literal["none", "batch", "layer"] = "none"
    dropout: Fraction = 0.0


class ConvNet(Section):
    """A small convolutional network for images of about 28x28."""

    name: Literal["convnet"]
    widths: Annotated[list[Positive], Field(min_length=1)] = Field([32, 64, 128], description="Channels of each stage.")
    norm: Literal["group", "batch", "none"] = "group"
    dropout: Fraction = 0.0


class ResNet18(Section):
    """ResNet-18 (He et al. 2015, arXiv:1512.03385), v1.5."""

    name: Literal["resnet18"]
    norm: Literal["batch", "group"] = "batch"
    zero_init_last_gamma: bool = Field(True, description="Each residual branch begins as zero (Goyal et al. 2017).")


class ResNet50(Section):
    """ResNet-50 (He et al. 2015, arXiv:1512.03385), v1.5."""

    name: Literal["resnet50"]
    norm: Literal["batch", "group"] = "batch"
    zero_init_last_gamma: bool = Field(True, description="Each residual branch begins as zero (Goyal et al. 2017).")


class Transformer(Section):
    """A causal transformer."""

    name: Literal["transformer"]
    layers: Positive = 4
    heads: Positive = 4
    width: Positive = Field(128, description="Divisible by heads.")
    dropout: Fraction = 0.0

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
    ]


Model = Annotated[
    Annotated[Mlp, Tag("mlp")]
    | Annotated[ConvNet, Tag("convnet")]
    | Annotated[ResNet18, Tag("resnet18")]
    | Annotated[ResNet50, Tag("resnet50")]
    | Annotated[Transformer, Tag("transformer")]
    | Annotated[CustomModel, Tag(CUSTOM)],
    Discriminator(by_name),
]
