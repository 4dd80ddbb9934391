"""The loss of fixed samples that sharpness and the noise scale at a checkpoint are of."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from disttrain.config import load_recipe
from disttrain.errors import InputError
from disttrain.study.train_loss import refuse_moving_loss, summed_loss


def test_several_losses_are_added_up_by_their_weights() -> None:
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    two = SimpleNamespace(losses=lambda model, inputs: {"b": inputs[:, 1], "a": inputs[:, 0].half()})
    one = SimpleNamespace(losses=lambda model, inputs: inputs[:, 0].half() * 20000)
    for task, weights, wanted in ((two, {"b": 10.0}, 64.0), (two, None, 10.0), (one, None, 80000.0)):
        ready: Any = SimpleNamespace(
            task=task, model=nn.Identity(), recipe=SimpleNamespace(loss=SimpleNamespace(weights=weights))
        )
        found = summed_loss(ready, x)
        assert (found.item(), found.dim(), found.requires_grad) == (wanted, 0, True)


def test_a_loss_of_no_single_samples_is_refused() -> None:
    plain: Any = SimpleNamespace(over_global_batch=False)
    whole: Any = SimpleNamespace(over_global_batch=True)
    refuse_moving_loss(load_recipe(None), plain)
    with pytest.raises(InputError, match="takes its loss over the global batch"):
        refuse_moving_loss(load_recipe(None), whole)
    with pytest.raises(InputError, match=r"loss\.balance: the weights"):
        refuse_moving_loss(load_recipe(None, ["loss.balance={kind: uncertainty, lr: 0.1}"]), plain)
