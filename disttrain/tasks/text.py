"""Language modelling: predict the next token."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from disttrain.data.dataset import Dataset
from disttrain.data.text import TextDataset, load_text
from disttrain.tasks.base import Sizes, Task


class Text(Task):
    """A text file read as bytes, or a ``.npy`` file of token ids; its end is the test set.

    Args:
        root: the file.
        sequence_length: tokens of a sample.
        vocab_size: number of different tokens; None: 256.
        test_fraction: share of the tokens in the test set.
        label_smoothing: in training only.
    """

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
        self.vocab_size = vocab_size or 256
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
        inputs, targets = tensors
        logits = model(inputs)
        return F.cross_entropy(
            logits.flatten(0, 1), targets.flatten(), reduction="none", label_smoothing=self.label_smoothing
        ).view_as(targets)

    def evaluate(self, model: nn.Module, tensors: Sequence[Tensor]) -> dict[str, Tensor]:
        inputs, targets = tensors
        logits = model(inputs)
        return {
            "loss": F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").double().sum(),
            "correct": (logits.argmax(-1) == targets).sum(),
            "tokens": torch.tensor(targets.numel()),
        }

    def summarise(self, totals: Mapping[str, float]) -> dict[str, float]:
        loss = totals["loss"] / totals["tokens"]
        return {
            "loss": loss,
            "accuracy": totals["correct"] / totals["tokens"],
            "perplexity": math.exp(min(loss, 700.0)),
        }
