"""Parameter groups by shape and module, and an import that loads nothing of ours."""

from __future__ import annotations

import torch
from torch import nn

from disttrain.optim import nothing, param_groups


def test_vectors_and_normalisations_are_spared_and_nothing_is_lost() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 8), nn.LayerNorm((2, 4)), nn.Embedding(5, 2)
    )
    decayed, spared = param_groups(model)
    names = {id(p): name for name, p in model.named_parameters()}
    assert [names[id(p)] for p in decayed["params"]] == ["0.weight", "3.weight", "5.weight"]
    # LayerNorm((2, 4)) owns matrices, which are no weights for all that.
    assert [names[id(p)] for p in spared["params"]] == ["0.bias", "1.weight", "1.bias", "3.bias", "4.weight", "4.bias"]
    assert spared["weight_decay"] == 0.0
    assert "weight_decay" not in decayed


def test_frozen_and_shared_parameters() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    model[0].bias.requires_grad_(False)
    assert [len(g["params"]) for g in param_groups(model)] == [1, 1]
    assert [len(g["params"]) for g in param_groups(model, exclude=nothing)] == [2]
    torch.optim.AdamW(param_groups(model)).step()
