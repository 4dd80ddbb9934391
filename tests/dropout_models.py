"""Models with dropout, for recipes of tests: Hugging Face's from small configurations with random weights, and some to refuse."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from disttrain.tasks.digits import Digits
from disttrain.tasks.terms import Losses


class Logits(nn.Module):
    """A Hugging Face model that gives its logits."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x).logits
        return logits


def gpt2(
    vocab_size: int, sequence_length: int, layers: int = 2, attention: str = "sdpa", checkpoint: bool = False
) -> nn.Module:
    """GPT-2 with its own dropout of 0.1 in three places."""
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes = {"n_layer": layers, "n_head": 2, "n_embd": 16, "n_positions": sequence_length, "vocab_size": vocab_size}
    config = GPT2Config(**sizes, bos_token_id=0, eos_token_id=0, use_cache=False, attn_implementation=attention)
    model = GPT2LMHeadModel(config)
    if checkpoint:
        model.activation_checkpointing_enable()
    return Logits(model)


def vit(in_shape: Sequence[int], num_classes: int) -> nn.Module:
    """A ViT with dropout of its attention and its layers.

    Without biases before attention: that of the keys has no effect on the output, so it would be made of rounding alone, and so
    would its relative difference.
    """
    from transformers import ViTConfig, ViTForImageClassification

    sizes = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "patch_size": 4,
    }
    rates = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.2}
    config = ViTConfig(
        **sizes, **rates, qkv_bias=False, image_size=in_shape[-1], num_channels=in_shape[0], num_labels=num_classes
    )
    return Logits(ViTForImageClassification(config))


class Restless(nn.Module):
    """Drops by a number in its code, and adds noise of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(64, 10)
        self.noise = Noise()

    def forward(self, x: Tensor) -> Tensor:
        dropped = F.dropout(x.flatten(1), 0.3, self.training)
        out: Tensor = self.head(self.noise(dropped))
        return out


class Noise(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.randn_like(x) if self.training else x


def recurrent(in_shape: Sequence[int], num_classes: int) -> nn.Module:
    return nn.ModuleDict({"body": nn.LSTM(8, 8, num_layers=2, dropout=0.1), "head": nn.Linear(8, num_classes)})


class NoisyDigits(Digits):
    """A task whose losses draw."""

    def losses(self, model: nn.Module, tensors: Any) -> Losses:
        images, labels = tensors
        return super().losses(model, (images + 0.1 * torch.rand_like(images), labels))


class TwoViews(nn.Module):
    """Each sample twice, one view after the other or, ``by_sample``, next to each other."""

    def __init__(self, by_sample: bool = False, norm: bool = False) -> None:
        super().__init__()
        self.by_sample = by_sample
        self.norm = nn.BatchNorm1d(64) if norm else nn.Identity()
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        first = self.norm(x.flatten(1))
        views = (first, first.flip(1))
        if self.by_sample:
            out: Tensor = self.head(self.drop(torch.stack(views, 1).flatten(0, 1))).unflatten(0, (-1, 2)).sum(1)
        else:
            out = self.head(self.drop(torch.cat(views))).unflatten(0, (2, -1)).sum(0)
        return out
