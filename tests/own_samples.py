"""Tasks whose samples are dicts: padded texts from Hugging Face datasets, and pictures with a class for each pixel."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from disttrain.data.randomness import bits, uniform
from disttrain.tasks.base import Task
from disttrain.tasks.cross_entropy import cross_entropy, rates, totals

IGNORED = -100


def texts(first: int, count: int) -> Any:
    """A Hugging Face data set of ``count`` texts of 1 to 12 letters: their letters, whether the first of all
    is among them, and of each letter whether its neighbour is one of the first three."""
    import datasets

    rows = []
    for i in range(first, first + count):
        draw = bits(0, 0, [i], stream="texts", draws=13)[0]
        ids = [int(number % 8) + 1 for number in draw[: int(draw[12] % 12) + 1]]
        rows.append(
            {"ids": ids, "label": int(min(ids) == 1), "tags": [int(other <= 3) for other in [*ids[1:], ids[0]]]}
        )
    return datasets.Dataset.from_list(rows)


class Texts(Task):
    """One class for each text."""

    default_model = ("tests.own_samples:Reader", {"classes": 2})
    metric_names = ("loss", "accuracy")

    @cached_property
    def sets(self) -> tuple[Any, Any]:
        return texts(0, 90), texts(90, 30)

    def train_dataset(self) -> Any:
        return self.sets[0]

    def test_dataset(self) -> Any:
        return self.sets[1]

    def collate(self, samples: list[Any]) -> dict[str, Tensor]:
        return {
            "ids": pad_sequence([torch.tensor(sample["ids"]) for sample in samples], batch_first=True),
            "tags": pad_sequence([torch.tensor(sample["tags"]) for sample in samples], True, IGNORED),
            "label": torch.tensor([sample["label"] for sample in samples]),
        }

    def losses(self, model: nn.Module, tensors: Any) -> Tensor:
        return cross_entropy(model(tensors["ids"])[:, 0], tensors["label"])

    def evaluate(self, model: nn.Module, tensors: Any) -> dict[str, Tensor]:
        return totals(model(tensors["ids"])[:, 0], tensors["label"])

    def summarise(self, totals: Mapping[str, float]) -> dict[str, float]:
        return rates(totals)


class Tags(Texts):
    """One class for each letter of each text; padding has a loss of zero and does not count."""

    items_per_sample = None

    def count_items(self, tensors: Any) -> Tensor:
        return (tensors["tags"] != IGNORED).sum()

    def losses(self, model: nn.Module, tensors: Any) -> Tensor:
        logits = model(tensors["ids"])[:, 1:]
        return F.cross_entropy(logits.transpose(1, 2), tensors["tags"], ignore_index=IGNORED, reduction="none")

    def evaluate(self, model: nn.Module, tensors: Any) -> dict[str, Tensor]:
        real = tensors["tags"] != IGNORED
        return totals(model(tensors["ids"])[:, 1:][real], tensors["tags"][real])


class Unmasked(Tags):
    """The mistake that is easily made: losses of padding."""

    def losses(self, model: nn.Module, tensors: Any) -> Tensor:
        return cross_entropy(model(tensors["ids"])[:, 1:], tensors["tags"].clamp(min=0))


class Unpacked(Texts):
    """Another one: a tuple is expected where samples are dicts."""

    def losses(self, model: nn.Module, tensors: Any) -> Tensor:
        ids, label = tensors
        return cross_entropy(model(ids)[:, 0], label)


class Streamed(Texts):
    """Data that can be read in one order only."""

    def train_dataset(self) -> Any:
        return super().train_dataset().to_iterable_dataset()


class Uncollated(Texts):
    """Texts of unequal length, not padded."""

    collate = Task.collate


class Reader(nn.Module):
    """Attention without biases (the gradient of a key's is rounding alone, and Adam would enlarge it) in which
    padding (0) is masked: ``(n, length)`` to ``(n, 1 + length, classes)``, the text, then its letters."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(9, 16)
        self.places = nn.Embedding(13, 16)
        self.mix = nn.MultiheadAttention(16, 2, bias=False, batch_first=True)
        self.head = nn.Linear(16, classes)

    def forward(self, ids: Tensor) -> Tensor:
        ids = F.pad(ids, (1, 0), value=9) % 9  # in front, a letter of its own that stands for the text: 9 is read as 0
        x = self.embedding(ids) + self.places(torch.arange(ids.shape[1]))
        padding = ids == 0
        padding[:, 0] = False
        mixed = self.mix(x, x, x, key_padding_mask=padding, need_weights=False)[0]
        logits: Tensor = self.head(x + mixed)
        return logits


class Shapes(Task):
    """Which pixels of an 8x8 picture belong to its disc: a class for each pixel, intersection over union as the metric."""

    metric = "iou"
    items_per_sample = 64
    default_model = ("tests.own_samples:Painter", {})

    def train_dataset(self) -> Any:
        return Discs(0, 96)

    def test_dataset(self) -> Any:
        return Discs(96, 32)

    def losses(self, model: nn.Module, tensors: Any) -> Tensor:
        return F.cross_entropy(model(tensors["image"]), tensors["mask"], reduction="none")

    def evaluate(self, model: nn.Module, tensors: Any) -> dict[str, Tensor]:
        logits, mask = model(tensors["image"]), tensors["mask"].bool()
        found = logits.argmax(1).bool()
        losses = F.cross_entropy(logits, tensors["mask"], reduction="none")
        return {
            "loss": losses.double().sum(),
            "pixels": torch.tensor(mask.numel()),
            "both": (found & mask).sum(),
            "either": (found | mask).sum(),
        }

    def summarise(self, totals: Mapping[str, float]) -> dict[str, float]:
        return {"loss": totals["loss"] / totals["pixels"], "iou": totals["both"] / max(totals["either"], 1.0)}


class Discs(torch.utils.data.Dataset[dict[str, Tensor]]):
    """Noisy pictures of one disc each, with its mask."""

    def __init__(self, first: int, count: int) -> None:
        self.first, self.count = first, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        u = torch.from_numpy(uniform(0, 0, [self.first + index], stream="discs", draws=67)[0])
        rows, columns = torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")
        mask = (rows - 8 * u[0]) ** 2 + (columns - 8 * u[1]) ** 2 < (1.5 + 2 * u[2]) ** 2
        return {"image": (mask + 0.5 * u[3:].view(8, 8)).float()[None], "mask": mask.long()}


class Painter(nn.Sequential):
    """Two convolutions."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 2, 3, padding=1))
