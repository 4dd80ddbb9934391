"""The ``task`` section: what is trained on."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag

from disttrain.config.sections.base import CUSTOM, Importable, Open, Positive, Section, by_name


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
