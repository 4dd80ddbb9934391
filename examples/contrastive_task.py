"""A loss over the global batch in a recipe, complete: two encoders and a temperature, trained as CLIP is (Radford et al. 2021,
arXiv:2103.00020, figure 3). Each sample's pair is told apart from all others of the *global* batch, whichever rank has them.

In a recipe, with this directory's parent as the current directory::

    task: {name: "examples.contrastive_task:Pairs"}
    batch: {global: 256}
    epochs: 10
    optimizer: {name: adamw, lr: 5.0e-3}
    schedule: {warmup: {epochs: 1}, decay: {kind: cosine}}

A sample is an "image" of 16 numbers and a "text" of 6 tokens that say the same thing, one of 12 concepts, each in its own way.
It is evaluated as such models are: does an image fit the text of its concept better than those of all others?
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from disttrain.data import ArrayDataset
from disttrain.data.randomness import normal, uniform
from disttrain.tasks.base import Sizes, Task

CONCEPTS, PIXELS, WORDS, LENGTH = 12, 16, 20, 6


class TwoEncoders(nn.Module):
    """Embeddings of length 1 of images and of texts, and the temperature that both directions share."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.image = nn.Sequential(nn.Linear(PIXELS, 64), nn.GELU(), nn.Linear(64, width))
        self.words = nn.Embedding(WORDS, 64)
        self.text = nn.Sequential(nn.GELU(), nn.Linear(64, width))
        self.log_scale = nn.Parameter(torch.tensor(float(np.log(1 / 0.07))))

    def forward(self, images: Tensor, texts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        image = F.normalize(self.image(images), dim=-1)
        text = F.normalize(self.text(self.words(texts).mean(1)), dim=-1)
        return image, text, self.log_scale.exp()


class Pairs(Task):
    """Images, texts, and which concept they are of (for evaluation only).

    Args:
        train_samples, test_samples: sizes of the two sets.
    """

    over_global_batch = True  # losses() gathers: every rank's share goes through the model at once
    static_graph = True
    metric_names = ("loss", "accuracy")
    default_model = ("examples.contrastive_task:TwoEncoders", {})

    def __init__(self, train_samples: int = 2000, test_samples: int = 500) -> None:
        self.counts = Sizes(train_samples, test_samples)

    def sizes(self) -> Sizes:
        return self.counts

    @cached_property
    def datasets(self) -> tuple[ArrayDataset, ArrayDataset]:
        """Made up from the sample ids, so that every rank has the same; read your files here."""
        ids = np.arange(self.counts.train + self.counts.test)
        concept = (uniform(0, 0, ids, stream="concept")[:, 0] * CONCEPTS).astype(np.int64)
        prototypes = normal(0, 0, np.arange(CONCEPTS), stream="prototype", draws=PIXELS)
        images = prototypes[concept] + 0.3 * normal(0, 0, ids, stream="image", draws=PIXELS)
        anything = (uniform(0, 0, ids, stream="words", draws=LENGTH) * WORDS).astype(np.int64)
        about = uniform(0, 0, ids, stream="about", draws=LENGTH) < 0.7
        texts = np.where(about, concept[:, None], anything)
        tensors = torch.from_numpy(images).float(), torch.from_numpy(texts), torch.from_numpy(concept)
        cut = self.counts.train
        return ArrayDataset(*(t[:cut] for t in tensors)), ArrayDataset(*(t[cut:] for t in tensors))

    def train_dataset(self) -> ArrayDataset:
        return self.datasets[0]

    def test_dataset(self) -> ArrayDataset:
        return self.datasets[1]

    def losses(self, model: nn.Module, tensors: Sequence[Tensor]) -> Tensor:
        images, texts, _ = tensors
        image, text, scale = model(images, texts)
        everywhere = self.global_batch
        pair = everywhere.own(image.device)  # where this rank's pairs are among all
        to_text = F.cross_entropy(scale * image @ everywhere.gather(text).T, pair, reduction="none")
        to_image = F.cross_entropy(scale * text @ everywhere.gather(image).T, pair, reduction="none")
        return (to_text + to_image) / 2  # one for each of this rank's samples; disttrain takes the global mean

    def evaluate(self, model: nn.Module, tensors: Sequence[Tensor]) -> dict[str, Tensor]:
        """Each image against one text for each concept, so that the result does not depend on how the set is cut."""
        images, _, concept = tensors
        captions = torch.arange(CONCEPTS, device=images.device)[:, None].expand(-1, LENGTH)
        image, _, scale = model(images, captions[concept])
        _, text, _ = model(images[:1].expand(CONCEPTS, -1), captions)
        logits = (scale * image @ text.T).double()
        return {
            "loss": F.cross_entropy(logits, concept, reduction="sum"),
            "correct": (logits.argmax(1) == concept).sum(),
            "samples": torch.tensor(len(concept)),
        }

    def summarise(self, totals: Mapping[str, float]) -> dict[str, float]:
        return {name: totals[key] / totals["samples"] for name, key in (("loss", "loss"), ("accuracy", "correct"))}
