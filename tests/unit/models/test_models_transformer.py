"""The transformer against a reference written from the formulas, and its causality."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from disttrain.errors import InputError
from disttrain.models.transformer import Transformer


def small() -> Transformer:
    torch.manual_seed(1)
    model = Transformer(vocab_size=17, sequence_length=9, layers=2, heads=3, width=12).double()
    with torch.no_grad():
        for parameter in model.parameters():  # away from zeros and ones, which would hide a mistake
            parameter += 0.3 * torch.randn_like(parameter)
    return model


def normed(x: Tensor, w: dict[str, Tensor], name: str) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    variance = centred.square().mean(-1, keepdim=True)
    return centred / (variance + 1e-5).sqrt() * w[f"{name}.weight"] + w[f"{name}.bias"]


def linear(x: Tensor, w: dict[str, Tensor], name: str) -> Tensor:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def reference(w: dict[str, Tensor], tokens: Tensor, heads: int) -> Tensor:
    """Head by head and with an explicit mask."""
    count = tokens.shape[1]
    x = w["tokens.weight"][tokens] + w["positions"][:count]
    later = torch.ones(count, count).triu(1).bool()
    for layer in range(2):
        name = f"layers.{layer}"
        q, k, v = linear(normed(x, w, f"{name}.attention_norm"), w, f"{name}.qkv").chunk(3, -1)
        parts = []
        for qh, kh, vh in zip(q.chunk(heads, -1), k.chunk(heads, -1), v.chunk(heads, -1), strict=True):
            scores = qh @ kh.transpose(1, 2) / math.sqrt(qh.shape[-1])
            parts.append(scores.masked_fill(later, -math.inf).softmax(-1) @ vh)
        x = x + linear(torch.cat(parts, -1), w, f"{name}.out")
        h = linear(normed(x, w, f"{name}.mlp_norm"), w, f"{name}.up")
        h = h * 0.5 * (1 + torch.erf(h / math.sqrt(2)))
        x = x + linear(h, w, f"{name}.down")
    return normed(x, w, "norm") @ w["tokens.weight"].T


@pytest.mark.parametrize("count", [1, 4, 9])
def test_formula(count: int) -> None:
    model = small()
    tokens = torch.randint(17, (5, count))
    torch.testing.assert_close(model(tokens), reference(dict(model.state_dict()), tokens, heads=3))


def test_no_token_sees_a_later_one() -> None:
    model = small()
    tokens = torch.randint(17, (2, 9))
    changed = tokens.clone()
    changed[:, 5:] = (tokens[:, 5:] + 1) % 17
    before, after = model(tokens), model(changed)
    torch.testing.assert_close(before[:, :5], after[:, :5])
    assert (before[:, 5:] - after[:, 5:]).abs().amax(-1).min() > 1e-3


def test_number_of_parameters() -> None:
    vocab, length, layers, width = 50, 20, 3, 16
    with torch.device("meta"):
        model = Transformer(vocab, length, layers=layers, heads=4, width=width)
    layer = 12 * width**2 + 13 * width  # four width^2 for attention, eight for the rest, biases, two norms
    expected = vocab * width + length * width + layers * layer + 2 * width
    assert sum(p.numel() for p in model.parameters()) == expected


def test_initialisation() -> None:
    torch.manual_seed(0)
    layers = 8
    model = Transformer(256, 128, layers=layers, heads=4, width=128)
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            ends = name.endswith(("out.weight", "down.weight"))
            expected = 0.02 / math.sqrt(2 * layers) if ends else 0.02
            assert parameter.std().item() == pytest.approx(expected, rel=0.03), name
        else:
            assert parameter.unique().item() == (0.0 if name.endswith("bias") else 1.0), name
    tokens = torch.randint(256, (4, 128))
    loss = torch.nn.functional.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
    assert loss.item() == pytest.approx(math.log(256), abs=0.1)


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(InputError, match="width is 10, not divisible by heads 4"):
        Transformer(5, 5, heads=4, width=10)
