"""Tasks of a user's own, on digits."""

from __future__ import annotations

from disttrain.data import ArrayDataset
from disttrain.data.dataset import Dataset
from disttrain.tasks.base import Sizes
from disttrain.tasks.digits import Digits


class WithValidation(Digits):
    """Brings 100 samples that validate: the first of the test set."""

    def sizes(self) -> Sizes:
        return Sizes(1437, 360, 100)

    def validation_dataset(self) -> Dataset:
        test = self.test_dataset()
        assert isinstance(test, ArrayDataset)
        return ArrayDataset(*(tensor[:100] for tensor in test.tensors))


class Miscounted(Digits):
    """Says that it has fewer training samples than it has."""

    def sizes(self) -> Sizes:
        return Sizes(1400, 360)


class Unnamed(Digits):
    """Its metric is none that it reports."""

    metric = "exactness"
