"""Photographs in folders, one folder per class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from disttrain.data.image_folder import ImageFolder as Split
from disttrain.data.image_folder import load_image_folder
from disttrain.errors import InputError
from disttrain.registry import resolve
from disttrain.tasks.classification import Classification


class ImageFolder(Classification):
    """``root/train/CLASS/*`` and ``root/val/CLASS/*`` (or ``test``), as ImageNet is usually unpacked.

    Args:
        root: the directory.
        image_size: side of the square that goes into the model, in pixels.
        transform: ``pkg.mod:function`` in place of the random crops and flips of training images: from a PIL image to a tensor
            (3, image_size, image_size), whose random draws follow from seed, epoch and sample.
        test_transform: likewise, in place of the centre crop of test images.
        seed: of the random crops and flips of training images, or of ``transform``.

    Raises:
        InputError: only one of the two transforms, or one that cannot be found.
        DataError: when the folders are listed: one is missing or unfit, or the two sets differ in their classes.
    """

    default_model = ("resnet50", {})
    # ImageNet's, per channel, as in torchvision's references; near enough for other photographs.
    mean = (0.485, 0.456, 0.406)
    std = (0.229, 0.224, 0.225)

    def __init__(
        self,
        root: str,
        image_size: int = 224,
        transform: str | None = None,
        test_transform: str | None = None,
        seed: int = 0,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(label_smoothing)
        if (transform is None) != (test_transform is None):
            raise InputError(
                "task image_folder: transform and test_transform go together, so that training and test images are scaled alike"
            )
        self.transform, self.test_transform = (
            None if name is None else resolve(name, {}) for name in (transform, test_transform)
        )
        self.root, self.image_size, self.seed = root, image_size, seed
        self.in_shape = (3, image_size, image_size)

    def load(self) -> tuple[Split, Split]:
        train, test = load_image_folder(
            self.root,
            size=self.image_size,
            seed=self.seed,
            transform=self.transform,
            test_transform=self.test_transform,
        )
        self.num_classes = len(train.classes)
        return train, test

    def images_seen(self) -> Split:
        """The test set: how images are made fit for the model is its ``change``."""
        return self._datasets[1]  # type: ignore[return-value]  # as load() gives it

    def model_hints(self) -> Mapping[str, Any]:
        self.train_dataset()  # the classes are not known before the folders are listed
        return super().model_hints()
