"""The recipe's optimizers, made."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from disttrain.config import load_recipe
from disttrain.errors import InputError
from disttrain.methods.optimizers import make_optimizer


def made(section: str, model: nn.Module) -> torch.optim.Optimizer:
    return make_optimizer(load_recipe(None, [f"optimizer={section}"]), model, lr=0.1, global_batch=64)


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
