"""The recipe's optimizers, made."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import nn

from disttrain.config import load_recipe
from disttrain.errors import InputError
from disttrain.methods.optimizers import make_optimizer
from disttrain.methods.rates import parameter_settings
from disttrain.plan.carry import Carried
from tests.unit.optim.golden import agree, drive
from tests.unit.optim.test_golden import RATES, gradient, starts


def made(section: str, model: nn.Module) -> torch.optim.Optimizer:
    recipe = load_recipe(None, [f"optimizer={section}"])
    settings = parameter_settings(recipe, model, [name for name, _ in model.named_parameters()])
    return make_optimizer(recipe, model, Carried(0.1), settings)


def test_one_kernel_for_torchs_own() -> None:
    for name in ("sgd", "adamw"):
        assert made(f"{{name: {name}, lr: 0.1}}", nn.Linear(2, 2)).defaults["fused"] is True


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("{name: lars, lr: 0.1, nesterov: true, momentum: 0.0}", "nesterov: true needs momentum > 0"),
        (
            "{name: lars, lr: 0.1, momentum_correction: true, lr_in_momentum: false}",
            "lars does not take these arguments",
        ),
        ("{name: 'disttrain.optim:LAMB', lr: 0.1, weight_dekay: 0.1}", "unexpected keyword argument 'weight_dekay'"),
        ("{name: 'torch.optim:SGD', lr: 0.1, momentum: -1.0}", "does not take these arguments: Invalid momentum"),
        ("{name: 'torch:arange', lr: 0.1}", "torch:arange does not take these arguments"),
    ],
)
def test_arguments_that_do_not_fit_are_the_users_mistake(section: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        made(section, nn.Linear(2, 2))


class NotOne:
    def __init__(self, params: object, lr: float) -> None:
        self.lr = lr


def test_what_is_no_optimizer_is_refused() -> None:
    with pytest.raises(InputError, match="makes a NotOne, not an optimizer"):
        made(f"{{name: '{__name__}:NotOne', lr: 0.1}}", nn.Linear(2, 2))


@pytest.mark.parametrize(
    ("more", "orthogonal"),
    [
        ("", {"1.weight", "3.weight"}),
        (", adamw: ['1.*']", {"0.weight", "3.weight", "4.weight"}),
        (", adamw: ['[034].*']", {"1.weight"}),
    ],
)
def test_what_muon_orthogonalises(more: str, orthogonal: set[str]) -> None:
    """By default what lies between the embedding and the head; else all matrices but those named."""
    model = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 4), nn.Linear(4, 9))
    groups = made(f"{{name: muon, lr: 0.1{more}}}", model).param_groups
    chosen = {
        name
        for name, p in model.named_parameters()
        for g in groups
        if g["orthogonal"] and any(p is q for q in g["params"])
    }
    assert chosen == orthogonal
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    with pytest.raises(InputError, match=r"optimizer\.adamw: no trained parameter matches 'heat\.\*'"):
        made("{name: muon, lr: 0.1, adamw: ['heat.*']}", model)
    with pytest.raises(InputError, match="none of the trained parameters is a matrix between"):
        made("{name: muon, lr: 0.1}", nn.Linear(4, 4))


def rmsprop(
    weights: list[np.ndarray], *, alpha: float, eps: float, momentum: float, centered: bool, weight_decay: float
) -> list[np.ndarray]:
    """torch.optim.RMSprop's documented algorithm in float64 numpy; vectors are decayed too."""
    found = []
    for i, start in enumerate(weights):
        w, (v, mean, buffer) = start.copy(), (np.zeros_like(start) for _ in range(3))
        for t, lr in enumerate(RATES):
            g = gradient(t, i, w) + weight_decay * w
            v = alpha * v + (1 - alpha) * g * g
            mean = alpha * mean + (1 - alpha) * g
            buffer = momentum * buffer + g / (np.sqrt(v - mean * mean if centered else v) + eps)
            w = w - lr * buffer
        found.append(w)
    return found


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("centered", [False, True])
def test_rmsprop(centered: bool, momentum: float) -> None:
    settings = {"alpha": 0.9, "eps": 1e-6, "momentum": momentum, "centered": centered, "weight_decay": 0.01}
    words = "".join(f", {name}: {str(value).lower()}" for name, value in settings.items())

    def make(params: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
        return made(f"{{name: rmsprop, lr: 0.1{words}}}", nn.ParameterList(params))

    agree(drive(make, starts()), rmsprop(starts(), **settings), 1e-11)


def test_rmsprops_defaults_are_torchs() -> None:
    model = nn.Linear(2, 2)
    assert made("{name: rmsprop, lr: 0.1}", model).defaults == torch.optim.RMSprop(model.parameters(), 0.1).defaults
