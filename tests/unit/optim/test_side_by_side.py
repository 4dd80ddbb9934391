"""Our optimizers beside those of timm and torch_optimizer, in float32, where the settings coincide."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn

from disttrain.optim import LAMB, LARS, NovoGrad

STEPS = 20


@pytest.fixture
def timm() -> Iterator[Callable[[str], Any]]:
    """Imports a module of timm.optim without the packages around it, which want torchvision."""
    before = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] == "timm"}
    spec = importlib.util.find_spec("timm")
    assert spec is not None, "tests/peers.txt is not installed"
    assert spec.submodule_search_locations is not None
    for name, below in (("timm", ""), ("timm.optim", "/optim")):
        package = types.ModuleType(name)
        package.__path__ = [location + below for location in spec.submodule_search_locations]
        sys.modules[name] = package
    yield lambda name: importlib.import_module(f"timm.optim.{name}")
    for name in [name for name in sys.modules if name.split(".")[0] == "timm"]:
        del sys.modules[name]
    sys.modules.update(before)


@pytest.fixture
def torch_optimizer() -> Any:
    return importlib.import_module("torch_optimizer")


def side_by_side(
    ours: Callable[[list[nn.Parameter]], Any],
    theirs: Callable[[list[nn.Parameter]], Any],
    *,
    zeros: bool = True,
) -> None:
    """Agreement after 20 steps with a changing learning rate; ``zeros``: one tensor begins as zeros."""
    generator = torch.Generator().manual_seed(1)
    shapes = [(32, 16), (16,), (8, 4, 3, 3), (1,)]
    start = [torch.randn(shape, generator=generator) for shape in shapes]
    start += [torch.zeros(5, 5)] if zeros else []
    mine, other = ([nn.Parameter(w.clone()) for w in start] for _ in range(2))
    optimizers = ours(mine), theirs(other)
    for step in range(STEPS):
        for a, b in zip(mine, other, strict=True):
            a.grad = torch.randn(a.shape, generator=generator) * 10.0 ** (step % 3 - 1)
            b.grad = a.grad.clone()
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = 0.05 * (1 + step % 4)
            optimizer.step()
    for a, b, w in zip(mine, other, start, strict=True):
        assert float((a.detach() - w).abs().max()) > 0
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6 * float(b.detach().abs().max()))


@pytest.mark.parametrize(
    "settings",
    [{}, {"momentum": 0.9, "nesterov": True}, {"momentum": 0.9, "clip": True}, {"trust_coefficient": 0.02}],
    ids=str,
)
def test_timm_lars(timm: Callable[[str], Any], settings: dict[str, Any]) -> None:
    theirs = dict(settings)
    theirs["trust_coeff"] = theirs.pop("trust_coefficient", 0.001)
    theirs["trust_clip"] = theirs.pop("clip", False)
    lars = timm("lars").Lars
    side_by_side(
        lambda p: LARS.timm(p, 0.1, weight_decay=0.01, **settings),
        lambda p: lars(p, lr=0.1, weight_decay=0.01, **theirs),
    )


def test_timm_lars_without_decay_does_not_adapt(timm: Callable[[str], Any]) -> None:
    lars = timm("lars").Lars
    side_by_side(lambda p: LARS.timm(p, 0.1), lambda p: lars(p, lr=0.1))


@pytest.mark.parametrize("decay", [0.01, 0.0])
@pytest.mark.parametrize("clip", [None, 1.0, 1e9])
def test_timm_lamb(timm: Callable[[str], Any], clip: float | None, decay: float) -> None:
    lamb = timm("lamb").Lamb
    ours = {"pre_normalization": "none"} if clip is None else {"max_grad_norm": clip}
    side_by_side(
        lambda p: LAMB.timm(p, 0.1, weight_decay=decay, **ours),
        lambda p: lamb(p, lr=0.1, weight_decay=decay, max_grad_norm=clip),
    )


def test_timm_lambc(timm: Callable[[str], Any]) -> None:
    lamb = timm("lamb").Lamb
    side_by_side(
        lambda p: LAMB(p, 0.1, trust_clip=1.0),
        lambda p: lamb(p, lr=0.1, weight_decay=0.01, max_grad_norm=None, trust_clip=True),
    )


def test_timm_lamb_without_bias_correction(timm: Callable[[str], Any]) -> None:
    lamb = timm("lamb").Lamb
    side_by_side(
        lambda p: LAMB(p, 0.1, bias_correction=False, betas=(0.8, 0.99), eps=1e-4),
        lambda p: lamb(
            p, lr=0.1, bias_correction=False, betas=(0.8, 0.99), eps=1e-4, weight_decay=0.01, max_grad_norm=None
        ),
    )


NOVOGRAD: list[dict[str, Any]] = [
    {},
    {"weight_decay": 0.01},
    {"weight_decay": 0.01, "grad_averaging": True},
    {"amsgrad": True},
]


@pytest.mark.parametrize("settings", NOVOGRAD, ids=str)
def test_timm_novograd(timm: Callable[[str], Any], settings: dict[str, Any]) -> None:
    novograd = timm("nvnovograd").NvNovoGrad
    side_by_side(
        lambda p: NovoGrad(p, 0.1, **settings),
        lambda p: novograd(p, lr=0.1, betas=(0.95, 0.98), eps=1e-8, **settings),
    )


@pytest.mark.parametrize("settings", NOVOGRAD, ids=str)
def test_torch_optimizer_novograd(torch_optimizer: Any, settings: dict[str, Any]) -> None:
    side_by_side(
        lambda p: NovoGrad(p, 0.1, **settings),
        lambda p: torch_optimizer.NovoGrad(p, lr=0.1, betas=(0.95, 0.98), eps=1e-8, **settings),
    )


@pytest.mark.parametrize("nesterov", [False, True])
def test_torch_optimizer_lars(torch_optimizer: Any, nesterov: bool) -> None:
    """Where no norm is zero: there it drops the weight decay too."""
    common = {"weight_decay": 0.01, "trust_coefficient": 0.01, "eps": 1e-8, "nesterov": nesterov}
    side_by_side(
        lambda p: LARS(p, 0.1, lr_in_momentum=False, **common),
        lambda p: torch_optimizer.LARS(p, lr=0.1, momentum=0.9, **common),
        zeros=False,
    )


@pytest.mark.parametrize("settings", [{}, {"weight_decay": 0.01}], ids=str)
def test_torch_optimizer_lamb(torch_optimizer: Any, settings: dict[str, Any]) -> None:
    side_by_side(
        lambda p: LAMB.torch_optimizer(p, 0.1, **settings), lambda p: torch_optimizer.Lamb(p, lr=0.1, **settings)
    )
