"""Models of Hugging Face that a recipe of a test names, small and with random weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, ViTConfig, ViTForImageClassification


class ViT(ViTForImageClassification):
    """Images to class scores."""

    def __init__(self, in_shape: Sequence[int], num_classes: int, dropout: float = 0.0) -> None:
        sizes: dict[str, Any] = {
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
        }
        drop = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
        channels, side, _ = in_shape
        images = {"image_size": side, "patch_size": side // 2, "num_channels": channels}
        super().__init__(ViTConfig(**sizes, **drop, **images, num_labels=num_classes))

    def forward(self, images: Tensor) -> Tensor:  # type: ignore[override]
        logits: Tensor = super().forward(images).logits
        return logits


class GPT2(GPT2LMHeadModel):
    """Tokens to scores of the next one, with a head of its own."""

    def __init__(self, vocab_size: int, sequence_length: int, dropout: float = 0.0, layers: int = 2) -> None:
        drop = {"resid_pdrop": dropout, "embd_pdrop": dropout, "attn_pdrop": dropout}
        sizes = {"n_embd": 16, "n_layer": layers, "n_head": 2, "n_positions": sequence_length, "vocab_size": vocab_size}
        super().__init__(GPT2Config(**sizes, **drop, tie_word_embeddings=False, bos_token_id=0, eos_token_id=0))  # type: ignore[arg-type]

    def forward(self, tokens: Tensor) -> Tensor:  # type: ignore[override]
        logits: Tensor = super().forward(tokens).logits
        return logits
