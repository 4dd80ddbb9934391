"""Language modelling on bytes and on tokens."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from disttrain.errors import DataError
from disttrain.tasks.text import Text


class Bigrams(nn.Module):
    """Logits that depend on the last token alone."""

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.table = nn.Embedding(vocab_size, vocab_size)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.table(tokens)


def test_losses_and_metrics(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes(bytes(range(200)))
    task = Text(str(path), sequence_length=5, test_fraction=0.2)
    assert (task.sizes().train, task.sizes().test) == (31, 7)
    assert task.items_per_sample == 5
    assert task.model_hints() == {"vocab_size": 256, "sequence_length": 5}
    tokens, targets = task.prepare(task.train_dataset().gather(np.array([0, 2]), 0), torch.float64)
    assert tokens.tolist() == [[0, 1, 2, 3, 4], [10, 11, 12, 13, 14]]
    assert targets.tolist() == [[1, 2, 3, 4, 5], [11, 12, 13, 14, 15]]
    model = Bigrams(256).double()
    model.requires_grad_(False)
    losses = task.losses(model, (tokens, targets))
    table = model.table.weight.detach().numpy()
    log_p = table - np.log(np.exp(table).sum(1, keepdims=True))
    np.testing.assert_allclose(losses.detach().numpy(), -log_p[tokens, targets], rtol=1e-12)
    totals = {name: float(total) for name, total in task.evaluate(model, (tokens, targets)).items()}
    found = task.summarise(totals)
    assert found["loss"] == pytest.approx(-log_p[tokens, targets].mean(), rel=1e-12)
    assert found["perplexity"] == pytest.approx(math.exp(found["loss"]))
    assert found["accuracy"] == (table[tokens].argmax(-1) == targets.numpy()).mean()


def test_a_hopeless_model_has_a_finite_perplexity(tmp_path: Path) -> None:
    assert math.isfinite(Text("x").summarise({"loss": 1e9, "correct": 0, "items": 1})["perplexity"])


def test_tokens(tmp_path: Path) -> None:
    path = tmp_path / "tokens.npy"
    np.save(path, np.arange(1000, dtype=np.uint16) % 700)
    assert Text(str(path), sequence_length=10, vocab_size=700).model_hints()["vocab_size"] == 700
    assert Text(str(path), sequence_length=10, vocab_size=700).sizes().test == 9
    with pytest.raises(DataError, match="vocab_size is 256"):
        Text(str(path), sequence_length=10).sizes()


def test_tinyshakespeare(data_root: Path) -> None:
    task = Text(str(data_root / "tinyshakespeare" / "input.txt"), sequence_length=64)
    train, test = task.train_dataset(), task.test_dataset()
    assert train is task.train_dataset()
    assert (task.sizes().train, task.sizes().test) == (len(train), len(test)) == (15685, 1742)
    assert bytes(train.gather(np.array([0]), 0)[0][0].tolist()).startswith(b"First Citizen:\nBefore we proceed")
    assert len(task.fingerprint()) == 16
