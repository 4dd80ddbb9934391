"""Language modelling: predict the next token."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from torch import Tensor, nn

from disttrain.data.dataset import Dataset
from disttrain.data.text import TextDataset, load_text
from disttrain.tasks.base import Sizes, Task
from disttrain.tasks.cross_entropy import cross_entropy, rates, totals


class Text(Task):
    """A text file read as bytes, or a ``.npy`` file of token ids; its end is the test set.

    A loss item is a token, so ``loss`` is in nats a token and ``perplexity`` its exponential.

    Args:
        root: the file.
        sequence_length: tokens that are predicted in a sample.
        vocab_size: number of different tokens; None: 256, one for each byte.
        test_fraction: share of the tokens in the test set.
        label_smoothing: share of the target spread evenly over all tokens, in training only.

    Raises:
        DataError: when the data is read: the file is missing, damaged, too short, or holds a token that is too large.
    """

    metric = "accuracy"
    metric_names = ("loss", "accuracy", "perplexity")
    static_graph = True
    default_model = ("transformer", {})

    def __init__(
        self,
        root: str,
        sequence_length: int = 128,
        vocab_size: int | None = None,
        test_fraction: float = 0.1,
        label_smoothing: float = 0.0,
    ) -> None:
        self.root = root
        self.items_per_sample = sequence_length
        self.sequence_length = sequence_length
        self.vocab_size = 256 if vocab_size is None else vocab_size
        self.test_fraction = test_fraction
        self.label_smoothing = label_smoothing

    @cached_property
    def _datasets(self) -> tuple[TextDataset, TextDataset]:
        return load_text(self.root, self.sequence_length, vocab_size=self.vocab_size, test_fraction=self.test_fraction)

    def sizes(self) -> Sizes:
        return Sizes(*(len(dataset) for dataset in self._datasets))

    def train_dataset(self) -> Dataset:
        return self._datasets[0]

    def test_dataset(self) -> Dataset:
        return self._datasets[1]

    def model_hints(self) -> Mapping[str, Any]:
        return {"vocab_size": self.vocab_size, "sequence_length": self.sequence_length}

    def losses(self, model: nn.Module, tensors: Sequence[Tensor]) -> Tensor:
        tokens, targets = tensors
        return cross_entropy(model(tokens), targets, self.label_smoothing)

    def evaluate(self, model: nn.Module, tensors: Sequence[Tensor]) -> dict[str, Tensor]:
        tokens, targets = tensors
        return totals(model(tokens), targets)

    def predict(self, model: nn.Module, tensors: Sequence[Tensor]) -> Mapping[str, Tensor]:
        """``next``: the most probable token after each one."""
        return {"next": model(tensors[0]).argmax(-1)}

    def summarise(self, totals: Mapping[str, float]) -> dict[str, float]:
        found = rates(totals)
        # The largest float is about exp(709).
        return {**found, "perplexity": math.exp(min(found["loss"], 700.0))}
