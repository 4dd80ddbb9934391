"""A task that calls a transformers model as its documentation does: keyword arguments, and outputs by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from disttrain.data.arrays import ArrayDataset
from disttrain.data.dataset import Dataset
from disttrain.tasks.base import Sizes, Task
from disttrain.tasks.cross_entropy import cross_entropy, rates, totals

SEQUENCE = 9


class NextToken(Task):
    """Made-up tokens, each the successor of the one before but for a few."""

    items_per_sample = SEQUENCE - 1
    metric_names = ("loss", "accuracy")

    def __init__(self) -> None:
        generator = np.random.default_rng(0)
        tokens = (generator.integers(0, 20, (80, 1)) + np.arange(SEQUENCE)) % 23
        self._set = ArrayDataset(torch.from_numpy(tokens), torch.ones(80, SEQUENCE, dtype=torch.int64))

    def sizes(self) -> Sizes:
        return Sizes(80, 80)

    def train_dataset(self) -> Dataset:
        return self._set

    def test_dataset(self) -> Dataset:
        return self._set

    def _logits(self, model: nn.Module, tensors: Sequence[Tensor]) -> Tensor:
        tokens, mask = tensors
        logits: Tensor = model(input_ids=tokens, attention_mask=mask).logits
        return logits[:, :-1]

    def losses(self, model: nn.Module, tensors: Sequence[Tensor]) -> Tensor:
        return cross_entropy(self._logits(model, tensors), tensors[0][:, 1:])

    def evaluate(self, model: nn.Module, tensors: Sequence[Tensor]) -> dict[str, Tensor]:
        return totals(self._logits(model, tensors).contiguous(), tensors[0][:, 1:])

    def summarise(self, totals: Mapping[str, float]) -> dict[str, float]:
        return rates(totals)


def gpt2(**settings: Any) -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(GPT2Config(vocab_size=23, n_positions=SEQUENCE, n_embd=16, n_layer=1, n_head=2, **settings))
