"""A preset does what the library it is named after does, in float64: its defaults, its exclusions, and every edge. Where
that library cannot be installed, the formula it documents is the reference."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from disttrain.optim import LAMB, LARC, LARS
from tests.unit.optim import reference
from tests.unit.optim.golden import STOP_AND_GO, agree, drive, sporadic
from tests.unit.optim.test_golden import gradient, starts
from tests.unit.optim.test_side_by_side import timm, torch_optimizer  # noqa: F401  # fixtures

LARGE = [4.0 * lr for lr in STOP_AND_GO]
"""Rates above 1 too, where clipping at a norm of zero shows."""
SETTINGS: list[dict[str, Any]] = [{}, {"weight_decay": 0.01}, {"weight_decay": 0.0}]


@pytest.fixture(autouse=True)
def _double() -> Iterator[None]:
    """timm and torch_optimizer make scalars of the default dtype."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def groups(params: Sequence[nn.Parameter]) -> list[dict[str, Any]]:
    """Some tensors in a group without decay, as everybody leaves out biases."""
    return [{"params": list(params[::2])}, {"params": list(params[1::2]), "weight_decay": 0.0}]


def defaults_are(ours: Callable[..., Any], theirs: Any, names: dict[str, str]) -> None:
    there = inspect.signature(theirs).parameters
    mine = ours([nn.Parameter(torch.ones(2))])
    assert {name: mine.defaults[name] for name in names} == {
        name: there[other].default for name, other in names.items()
    }


@pytest.mark.parametrize("of", [gradient, sporadic])
@pytest.mark.parametrize("settings", [*SETTINGS, {"clip": True, "weight_decay": 0.01}, {"momentum": 0.9}], ids=str)
def test_lars_timm(timm: Any, settings: dict[str, Any], of: reference.Gradient) -> None:  # noqa: F811
    lars = timm("lars").Lars
    theirs = {"trust_clip" if name == "clip" else name: value for name, value in settings.items()}
    expected = drive(lambda p: lars(groups(p), **theirs), starts(), of, LARGE)
    agree(drive(lambda p: LARS.timm(groups(p), **settings), starts(), of, LARGE), [w.numpy() for w in expected], 1e-11)
    same = {name: name for name in ("lr", "momentum", "weight_decay", "nesterov", "eps")}
    defaults_are(LARS.timm, lars, {**same, "trust_coefficient": "trust_coeff", "clip": "trust_clip"})


@pytest.mark.parametrize("of", [gradient, sporadic])
@pytest.mark.parametrize("settings", [*SETTINGS, {"trust_clip": 1.0}, {"max_grad_norm": 1e-3}], ids=str)
def test_lamb_timm(timm: Any, settings: dict[str, Any], of: reference.Gradient) -> None:  # noqa: F811
    """Also with gradients that come and go: timm counts the steps of a group."""
    lamb = timm("lamb").Lamb
    theirs = {name: value == 1.0 if name == "trust_clip" else value for name, value in settings.items()}
    expected = drive(lambda p: lamb(groups(p), **theirs), starts(), of, LARGE)
    agree(drive(lambda p: LAMB.timm(groups(p), **settings), starts(), of, LARGE), [w.numpy() for w in expected], 1e-11)
    names = ("lr", "betas", "eps", "weight_decay", "bias_correction", "max_grad_norm")
    defaults_are(LAMB.timm, lamb, {name: name for name in names})


@pytest.mark.parametrize("of", [gradient, sporadic])
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_lamb_torch_optimizer(torch_optimizer: Any, settings: dict[str, Any], of: reference.Gradient) -> None:  # noqa: F811
    def theirs(params: Sequence[nn.Parameter]) -> Any:
        return torch_optimizer.Lamb(groups(params), **settings)

    expected = drive(theirs, starts(), of, LARGE)
    found = drive(lambda p: LAMB.torch_optimizer(groups(p), **settings), starts(), of, LARGE)
    agree(found, [w.numpy() for w in expected], 1e-11)
    names = ("lr", "betas", "eps", "weight_decay")
    defaults_are(LAMB.torch_optimizer, torch_optimizer.Lamb, {name: name for name in names})


def named() -> nn.ModuleDict:
    """Layers under the names that MLPerf's references exclude by."""
    layers = {"dense": nn.Linear(5, 7), "LayerNorm": nn.LayerNorm((2, 3)), "conv": nn.Conv2d(2, 3, 2)}
    return nn.ModuleDict({**layers, "batch_normalization": nn.BatchNorm1d(4), "head": nn.Linear(4, 4)})


def model_of(params: Sequence[nn.Parameter]) -> nn.Module:
    model = named()
    for (name, _), p in zip(list(model.named_parameters()), params, strict=True):
        owner, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(owner), leaf, p)
    return model


def named_starts() -> list[np.ndarray]:
    """The convolution begins at zero."""
    generator = np.random.default_rng(5)
    return [generator.normal(size=p.shape) * ("conv" not in name) for name, p in named().named_parameters()]


def matching(words: Sequence[str]) -> set[int]:
    return {i for i, (name, _) in enumerate(named().named_parameters()) if any(word in name for word in words)}


@pytest.mark.parametrize("settings", [{}, {"weight_decay": 0.0}, {"momentum": 0.93, "nesterov": True}], ids=str)
def test_lars_mlperf(settings: dict[str, Any]) -> None:
    """``skip_list=['batch_normalization', 'bias']`` of the reference's LARSOptimizer; its LayerNorm is only this model's."""
    excluded = matching(["batch_normalization", "LayerNorm", "bias"])
    expected = reference.lars(
        named_starts(), gradient, STOP_AND_GO, excluded=excluded, **{"weight_decay": 1e-4, **settings}
    )
    agree(
        drive(lambda p: LARS.mlperf(model_of(p), 0.1, **settings), named_starts(), rates=STOP_AND_GO), expected, 1e-11
    )


@pytest.mark.parametrize("settings", [{}, {"weight_decay": 0.0}], ids=str)
def test_lamb_mlperf_bert(settings: dict[str, Any]) -> None:
    """``exclude_from_weight_decay=['LayerNorm', 'layer_norm', 'bias']``, which its LAMBOptimizer leaves out of the layers'
    adaptation too."""
    excluded = matching(["LayerNorm", "batch_normalization", "bias"])
    formula = {"weight_decay": 0.01, "pre_normalization": "clip", "max_grad_norm": 1.0, **settings}
    expected = reference.lamb(named_starts(), gradient, STOP_AND_GO, excluded=excluded, **formula)
    found = drive(lambda p: LAMB.mlperf_bert(model_of(p), 0.1, **settings), named_starts(), rates=STOP_AND_GO)
    agree(found, expected, 1e-11)


@pytest.mark.parametrize("of", [gradient, sporadic])
def test_lamb_apex(of: reference.Gradient) -> None:
    """apex needs CUDA: by the formula of its kernels, tensors without decay unadapted, steps counted in the group."""
    formula = {"pre_normalization": "clip", "max_grad_norm": 1.0, "shared_steps": True}
    expected = reference.lamb(starts(), of, LARGE, excluded=range(1, len(starts()), 2), **formula)
    agree(drive(lambda p: LAMB.apex(groups(p)), starts(), of, LARGE), expected, 1e-11)


def test_lamb_nvlamb() -> None:
    """The README of NVIDIA's Deep Learning Examples: algorithm 2 on ``g / ||g||`` of the whole model, every layer adapted."""
    expected = reference.lamb(starts(), sporadic, LARGE, pre_normalization="always")
    agree(drive(LAMB.nvlamb, starts(), sporadic, LARGE), expected, 1e-11)


def test_groups_that_come_later_are_excluded_too() -> None:
    first, later = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2, 2))
    optimizer = LAMB.apex([first], 0.1, record=True)
    optimizer.add_param_group({"params": [later], "weight_decay": 0.0})
    for p in (first, later):
        p.grad = torch.full_like(p, 0.5)
    optimizer.step()
    assert float(optimizer.ratios[1][1]) == 1.0 != float(optimizer.ratios[0][1])


@pytest.mark.parametrize("preset", [LARS.mlperf, LAMB.mlperf_bert])
def test_presets_that_exclude_take_a_model_groups_or_parameters(preset: Callable[..., torch.optim.Optimizer]) -> None:
    """Groups as they are; of bare parameters, vectors and scalars are left out."""

    def grouped(excluded: Callable[[int, nn.Parameter], bool]) -> Callable[[Sequence[nn.Parameter]], Any]:
        def groups_of(params: Sequence[nn.Parameter]) -> list[dict[str, Any]]:
            out = {id(p) for i, p in enumerate(params) if excluded(i, p)}
            kept = {"params": [p for p in params if id(p) not in out]}
            return [kept, {"params": [p for p in params if id(p) in out], "weight_decay": 0.0}]

        return groups_of

    def go(given: Callable[[Sequence[nn.Parameter]], Any]) -> list[Any]:
        return [w.numpy() for w in drive(lambda p: preset(given(p), 0.1), named_starts(), rates=STOP_AND_GO)]

    words = matching(["batch_normalization", "LayerNorm", "bias"])
    for a, b in ((model_of, grouped(lambda i, p: i in words)), (iter, grouped(lambda i, p: p.ndim <= 1))):
        for x, y in zip(go(a), go(b), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-14)


@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
def test_larc_apex(weight_decay: float) -> None:
    """``apex/parallel/LARC.py``: decay and rate only where neither norm is zero, else the gradient as it is."""
    start = [np.array([[1.0, -2.0], [0.5, 3.0]]), np.zeros((2, 2)), np.array([[2.0, 1.0]])]
    grads = [np.array([[0.3, -0.1], [0.2, 0.4]]), np.ones((2, 2)), np.zeros((1, 2))]
    lr = 3.0
    params = [nn.Parameter(torch.from_numpy(w.copy())) for w in start]
    optimizer = LARC.apex(torch.optim.SGD(params, lr=lr, weight_decay=weight_decay))
    for p, g in zip(params, grads, strict=True):
        p.grad = torch.from_numpy(g.copy())
    optimizer.step()
    for p, w, g in zip(params, start, grads, strict=True):
        step = g
        if np.linalg.norm(w) and np.linalg.norm(g):
            rate = 0.02 * np.linalg.norm(w) / (np.linalg.norm(g) + np.linalg.norm(w) * weight_decay + 1e-8)
            step = min(rate / lr, 1.0) * (g + weight_decay * w)
        np.testing.assert_allclose(p.detach().numpy(), w - lr * step, rtol=1e-14, atol=1e-15)
