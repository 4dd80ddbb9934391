"""Models and tasks whose programs are easily made for too little."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from disttrain.tasks.base import Task


class Texts:
    """The first 40 are of 4 tokens, the later ones longer."""

    def __len__(self) -> int:
        return 60

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        length = 4 if index < 40 else 4 + index % 5
        return {"ids": torch.arange(length) % 7 + 1, "label": torch.tensor(index % 2)}


class Padded(Task):
    def train_dataset(self) -> Any:
        return Texts()

    def test_dataset(self) -> Any:
        return Texts()

    def collate(self, samples: list[Any]) -> dict[str, Tensor]:
        most = max(len(sample["ids"]) for sample in samples)
        ids = [F.pad(sample["ids"], (0, most - len(sample["ids"]))) for sample in samples]
        return {"ids": torch.stack(ids), "label": torch.stack([sample["label"] for sample in samples])}

    def losses(self, model: nn.Module, tensors: dict[str, Tensor]) -> Tensor:
        return F.cross_entropy(model(tensors["ids"]), tensors["label"], reduction="none")


class Bag(nn.Module):
    """``odd``: computes otherwise for an even number of samples."""

    def __init__(self, odd: bool = False) -> None:
        super().__init__()
        self.odd = odd
        self.tokens, self.head = nn.Embedding(8, 6, padding_idx=0), nn.Linear(6, 2)

    def forward(self, ids: Tensor) -> Tensor:
        scores: Tensor = self.head((self.tokens(ids) * (ids != 0)[..., None]).sum(1))
        return scores.flip(0).flip(0) if self.odd and len(ids) % 2 == 0 else scores
