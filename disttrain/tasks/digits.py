"""Handwritten digits that come with scikit-learn: the default task."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from disttrain.data.arrays import ArrayDataset
from disttrain.data.dataset import Dataset
from disttrain.data.randomness import keys
from disttrain.errors import InputError
from disttrain.tasks.base import Sizes
from disttrain.tasks.classification import Classification

SAMPLES = 1797
TEST_SAMPLES = 360


class Digits(Classification):
    """1,797 images of 8x8 with 17 grey levels (Alpaydin and Kaynak 1998, UCI "Optical Recognition of Handwritten Digits").

    A fifth, 360, is kept for testing, with the same share of every digit. The choice is ours and fixed, so it does not
    depend on the recipe's seed or on scikit-learn's generators.

    Raises:
        InputError: when the data is read: scikit-learn is not installed, or holds another set.
    """

    in_shape = (1, 8, 8)
    num_classes = 10

    def sizes(self) -> Sizes:
        return Sizes(SAMPLES - TEST_SAMPLES, TEST_SAMPLES)

    def load(self) -> tuple[Dataset, Dataset]:
        try:
            from sklearn.datasets import load_digits
        except ImportError as error:
            raise InputError(
                f"task digits needs scikit-learn, which holds its data, and it cannot be imported ({error}): "
                "pip install 'disttrain[quickstart]'"
            ) from error
        pixels, labels = load_digits(return_X_y=True)
        if len(labels) != SAMPLES:
            raise InputError(f"task digits: this scikit-learn has {len(labels)} digits, expected {SAMPLES}")
        test = in_test_set(labels, TEST_SAMPLES)
        images = torch.from_numpy(pixels).float().div(16).view(-1, *self.in_shape)
        targets = torch.from_numpy(labels.astype(np.int64))
        return ArrayDataset(images[~test], targets[~test]), ArrayDataset(images[test], targets[test])


def in_test_set(labels: NDArray[np.int64], size: int) -> torch.Tensor:
    """(n,) booleans: a fixed stratified choice of ``size`` of the n samples.

    In a row of all samples, sorted by label and shuffled within each, every n/size-th is chosen: of each label its share,
    but for less than one sample.
    """
    n = len(labels)
    row = np.lexsort((keys(0, 0, n, stream="digits split"), labels))
    chosen = np.zeros(n, dtype=bool)
    chosen[row] = np.diff(np.arange(n + 1) * size // n) == 1
    return torch.from_numpy(chosen)
