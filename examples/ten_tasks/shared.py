"""What all programs here begin with: data sets, networks, and a file of pretrained weights. Not counted."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import TensorDataset

PRETRAINED = Path("pretrained.safetensors")


def digits() -> tuple[TensorDataset, TensorDataset]:
    """Train and test set: (64,) and a label each."""
    x, y = load_digits(return_X_y=True)
    x, y = torch.tensor(x / 16.0).float(), torch.tensor(y)
    return TensorDataset(x[:1500], y[:1500]), TensorDataset(x[1500:], y[1500:])


def texts() -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    """Train and test set: {"tokens": a list of 3 to 20 numbers below 50, "labels": whether most of them are even}."""
    generator = torch.Generator().manual_seed(0)
    samples: list[dict[str, object]] = []
    for length in torch.randint(3, 21, (1200,), generator=generator).tolist():
        tokens = torch.randint(1, 50, (length,), generator=generator)
        samples.append({"tokens": tokens.tolist(), "labels": int((tokens % 2 == 0).float().mean() > 0.5)})
    return samples[:1000], samples[1000:]


class Net(nn.Module):
    """A body, and a head for ``classes``."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU())
        self.head = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


class BagOfTokens(nn.Module):
    """Classes of padded sequences: tokens (samples, longest), 0 where there is none."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 32, padding_idx=0)
        self.head = nn.Linear(32, 2)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.embedding(tokens).sum(1) / (tokens > 0).sum(1, keepdim=True))


class TwoTowers(nn.Module):
    """Two views of a sample as unit vectors, and the scale of their products."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(32, 16), nn.Linear(32, 16)
        self.log_scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        left, right = self.left(x[:, :32]), self.right(x[:, 32:])
        return nn.functional.normalize(left, dim=1), nn.functional.normalize(right, dim=1), self.log_scale.exp()


def make_pretrained() -> Path:
    """A file with the weights of a network for 1000 classes."""
    torch.manual_seed(0)
    save_file(Net(1000).state_dict(), PRETRAINED)
    return PRETRAINED
