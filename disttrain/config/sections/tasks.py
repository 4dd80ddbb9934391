"""The ``task`` section: what is trained on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, get_args

from pydantic import Discriminator, Field, Tag

from disttrain.config.sections.base import CUSTOM, Importable, Open, Positive, Section, by_name


class ImageAugment(Section):
    """Random changes to small images, a function of (seed, epoch, sample id)."""

    shift: Annotated[int, Field(ge=0)] = Field(0, description="Shift by up to so many pixels, filled with zeros.")
    flip: bool = Field(False, description="Mirror half of the images.")


class _Task(Section):
    """The class ``made_by`` takes the other fields as its arguments."""

    made_by: ClassVar[str]


class Digits(_Task):
    """scikit-learn's bundled handwritten digits: 8x8, 10 classes, no download."""

    made_by = "disttrain.tasks.digits:Digits"

    name: Literal["digits"]


class FashionMnist(_Task):
    """Fashion-MNIST: 28x28, 10 classes, IDX files."""

    made_by = "disttrain.tasks.mnist:FashionMnist"

    name: Literal["fashion_mnist"]
    root: str | None = Field(
        None,
        description="Directory of the IDX files; null: fashion-mnist below DISTTRAIN_DATA or data/.",
        examples=["data/fashion-mnist"],
    )
    augment: ImageAugment = Field(default_factory=ImageAugment, description="Random changes to the training images.")


class Mnist(_Task):
    """MNIST: 28x28, 10 classes, IDX files."""

    made_by = "disttrain.tasks.mnist:Mnist"

    name: Literal["mnist"]
    root: str | None = Field(
        None,
        description="Directory of the IDX files; null: mnist below DISTTRAIN_DATA or data/.",
        examples=["data/mnist"],
    )
    augment: ImageAugment = Field(default_factory=ImageAugment, description="Random changes to the training images.")


class ImageFolder(_Task):
    """Images in ``root/{train,test}/CLASS/``: random resized crops and flips for training, centre crops for testing."""

    made_by = "disttrain.tasks.image_folder:ImageFolder"
    objects: ClassVar[tuple[str, ...]] = ("transform", "test_transform")

    name: Literal["image_folder"]
    root: str = Field(description="Directory that holds train/ and test/ (or val/).", examples=["data/imagenet"])
    image_size: Positive = Field(224, description="Side of the square that goes into the model, in pixels.")
    transform: Importable | None = Field(
        None,
        examples=["my_package.images:augment"],
        description="pkg.mod:function from a PIL image to a tensor, in place of the random crops and flips of training images.",
    )
    test_transform: Importable | None = Field(
        None,
        examples=["my_package.images:centre"],
        description="pkg.mod:function in place of the centre crop of test images; goes with transform.",
    )


class Text(_Task):
    """Language modelling on a text file (bytes) or a .npy file of tokens."""

    made_by = "disttrain.tasks.text:Text"

    name: Literal["text"]
    root: str = Field(
        description="A text file, or a one-dimensional .npy file of unsigned integers.", examples=["data/input.txt"]
    )
    sequence_length: Positive = Field(128, description="Tokens that are predicted in a sample.")
    vocab_size: Positive | None = Field(
        None, description="Number of different tokens; null: 256, one for each byte.", examples=[50257]
    )
    test_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(
        0.1, description="Share of the file's end kept for testing."
    )


class Synthetic(_Task):
    """Made-up images and labels, for benchmarks."""

    made_by = "disttrain.tasks.synthetic:Synthetic"

    name: Literal["synthetic"]
    shape: Annotated[list[Positive], Field(min_length=1, max_length=4)] = Field(
        [3, 224, 224], description="Of one sample."
    )
    classes: Annotated[int, Field(ge=2)] = Field(1000, description="Number of labels.")
    train_samples: Positive = Field(8192, description="Size of the train set.")
    test_samples: Positive = Field(1024, description="Size of the test set.")


class NoisyQuadratic(_Task):
    """A quadratic with noisy gradients, whose training can be worked out exactly: to try out what measures batch sizes."""

    made_by = "disttrain.tasks.quadratic:NoisyQuadratic"

    name: Literal["noisy_quadratic"]
    dimension: Positive = Field(32, description="Number of weights.")
    curvature: Annotated[float, Field(gt=0.0)] = Field(1.0, description="Of the steepest direction.")
    exponent: Annotated[float, Field(ge=0.0)] = Field(
        1.0, description="The curvature of direction j is the steepest times j to the power of minus this."
    )
    noise: Annotated[float, Field(ge=0.0)] = Field(
        1.0,
        description="Variance of a sample's gradient in a direction, over its curvature to the power noise_exponent.",
    )
    noise_exponent: Annotated[float, Field(ge=0.0)] = Field(
        1.0, description="1: as much noisier as it is steeper; 0: the same noise in every direction."
    )
    start: float = Field(1.0, description="Where every weight begins; the minimum is at 0.")
    train_samples: Annotated[int, Field(ge=2, le=10**9, multiple_of=2)] = Field(
        65536, description="Size of the train set: pairs of opposite samples."
    )
    data_seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(
        0, description="Of the samples; the recipe's seed orders them."
    )


class Table(_Task):
    """A table of numbers, CSV or Parquet: one column predicted from the others."""

    made_by = "disttrain.tasks.table:TableTask"

    name: Literal["table"]
    train: str = Field(examples=["houses.csv"], description="A .csv, .tsv or .parquet file.")
    target: str = Field(examples=["price"], description="The column to be predicted.")
    test: str | None = Field(
        None, examples=["houses_test.csv"], description="A file with the same columns for testing; null: rows of train."
    )
    test_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(
        0.2, description="Where test is null: share of the rows of train kept for testing, a fixed choice."
    )
    kind: Literal["regression", "classification"] = Field(
        "regression", description="Whether the target is a number or a class (whole numbers or texts)."
    )
    features: Annotated[list[str], Field(min_length=1)] | None = Field(
        None, examples=[["rooms", "area"]], description="Columns that the model sees; null: all but the target."
    )
    standardise: bool = Field(
        True, description="Give inputs, and a target that is a number, mean 0 and deviation 1 over the train set."
    )


class CustomTask(Open):
    """``pkg.mod:Class``: a task of your own; further keys are its arguments."""

    name: Importable = Field(examples=["my_package.tasks:MyTask"])


Task = Annotated[
    Annotated[Digits, Tag("digits")]
    | Annotated[FashionMnist, Tag("fashion_mnist")]
    | Annotated[Mnist, Tag("mnist")]
    | Annotated[ImageFolder, Tag("image_folder")]
    | Annotated[Text, Tag("text")]
    | Annotated[Synthetic, Tag("synthetic")]
    | Annotated[NoisyQuadratic, Tag("noisy_quadratic")]
    | Annotated[Table, Tag("table")]
    | Annotated[CustomTask, Tag(CUSTOM)],
    Discriminator(by_name),
]

BUILT_IN: Mapping[str, str] = {
    get_args(s.model_fields["name"].annotation)[0]: s.made_by for s in _Task.__subclasses__()
}
"""The class of each task by its name in a recipe."""
