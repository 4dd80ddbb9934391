"""A run begun with another library's optimizer goes on with ours as if nothing had happened."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from disttrain.optim import LAMB, LARS, NovoGrad
from disttrain.optim.convert import convert_state
from tests.unit.optim.test_side_by_side import timm  # noqa: F401  # a fixture


def train(params: list[nn.Parameter], optimizer: Any, steps: range) -> None:
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        for p in params:
            p.grad = torch.randn(p.shape, generator=generator)
        for group in optimizer.param_groups:
            group["lr"] = 0.02 * (1 + step % 3)
        optimizer.step()


def continued(theirs: Any, ours: Any, source: str) -> None:
    """``theirs`` and ``ours`` make optimizers of parameters."""
    start = [torch.randn(4, 3), torch.randn(5)]
    whole = [nn.Parameter(w.clone()) for w in start]
    there = theirs(whole)
    train(whole, there, range(7))
    saved = copy.deepcopy(there.state_dict())
    mine = [nn.Parameter(w.detach().clone()) for w in whole]
    here = ours(mine)
    here.load_state_dict(convert_state(saved, source, here))
    assert here.param_groups[0]["lr"] == saved["param_groups"][0]["lr"]
    train(whole, there, range(7, 17))
    train(mine, here, range(7, 17))
    for a, b in zip(mine, whole, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


def test_timm_lamb(timm: Any) -> None:  # noqa: F811
    lamb = timm("lamb").Lamb
    continued(lambda p: lamb(p, weight_decay=0.01), lambda p: LAMB.timm(p, weight_decay=0.01), "timm-lamb")


@pytest.mark.parametrize("form", [{"lr_in_momentum": False}, {"lr_in_momentum": True, "momentum_correction": True}])
def test_timm_lars(timm: Any, form: dict[str, bool]) -> None:  # noqa: F811
    lars = timm("lars").Lars
    continued(
        lambda p: lars(p, momentum=0.9, weight_decay=0.01),
        lambda p: LARS(p, momentum=0.9, weight_decay=0.01, eps=1e-8, **form),
        "timm-lars",
    )


def apex_state(step: int = 3) -> dict[str, Any]:
    """As apex's FusedLAMB documents it: moments per parameter, the step in the group."""
    moments = {i: {"exp_avg": torch.full((2,), 0.1 * (i + 1)), "exp_avg_sq": torch.full((2,), 0.5)} for i in range(2)}
    group = {"lr": 0.3, "betas": (0.9, 0.999), "eps": 1e-6, "weight_decay": 0.01, "params": [0, 1], "step": step}
    return {"state": moments, "param_groups": [group]}


def test_apex_lamb() -> None:
    optimizer = LAMB.apex([nn.Parameter(torch.ones(2)) for _ in range(2)])
    optimizer.load_state_dict(convert_state(apex_state(), "apex-lamb", optimizer))
    state = optimizer.state[optimizer.param_groups[0]["params"][1]]
    assert float(state["step"]) == 3
    assert state["exp_avg"].tolist() == pytest.approx([0.2, 0.2])
    assert optimizer.param_groups[0]["lr"] == 0.3


def test_what_would_not_be_exact_is_refused() -> None:
    params = [nn.Parameter(torch.ones(2)) for _ in range(2)]
    lamb = LAMB(params)
    with pytest.raises(ValueError, match="becomes LAMB, not NovoGrad"):
        convert_state(apex_state(), "apex-lamb", NovoGrad(params))
    with pytest.raises(ValueError, match="expected one of timm-lamb"):
        convert_state(apex_state(), "apex", lamb)
    with pytest.raises(ValueError, match=r"\[2\] parameters there and \[1\] here"):
        convert_state(apex_state(), "apex-lamb", LAMB(params[:1]))
    odd = apex_state()
    odd["state"][0]["master"] = torch.ones(2)
    with pytest.raises(ValueError, match="is not LAMB's"):
        convert_state(odd, "apex-lamb", lamb)
    uncounted = apex_state()
    del uncounted["param_groups"][0]["step"]
    with pytest.raises(ValueError, match="how many steps"):
        convert_state(uncounted, "apex-lamb", lamb)
    shapes = apex_state()
    shapes["state"][1]["exp_avg"] = torch.ones(3)
    with pytest.raises(ValueError, match="does not fit"):
        convert_state(shapes, "apex-lamb", lamb)
    outside = {"state": {0: {"momentum_buffer": torch.ones(2)}}, "param_groups": [{"lr": 0.1, "params": [0, 1]}]}
    with pytest.raises(ValueError, match="momentum_correction=True"):
        convert_state(outside, "timm-lars", LARS(params))


@pytest.mark.parametrize("settings", [{"nesterov": True}, {"weight_decay": 0.0}, {"trust_clip": True}], ids=str)
def test_timm_lars_variants(timm: Any, settings: dict[str, Any]) -> None:  # noqa: F811
    lars = timm("lars").Lars
    common = {"weight_decay": 0.01, "momentum": 0.9, **settings}
    ours = {"clip" if name == "trust_clip" else name: value for name, value in common.items()}
    continued(lambda p: lars(p, **common), lambda p: LARS.timm(p, **ours), "timm-lars")


@pytest.mark.parametrize(
    "settings",
    [{"max_grad_norm": None}, {"bias_correction": False}, {"weight_decay": 0.0}, {"trust_clip": True}],
    ids=str,
)
def test_timm_lamb_variants(timm: Any, settings: dict[str, Any]) -> None:  # noqa: F811
    lamb = timm("lamb").Lamb
    common = {"weight_decay": 0.01, **settings}
    ours = {**common, **({"trust_clip": 1.0} if "trust_clip" in common else {})}
    if ours.pop("max_grad_norm", 1.0) is None:
        ours["pre_normalization"] = "none"
    continued(lambda p: lamb(p, **common), lambda p: LAMB.timm(p, **ours), "timm-lamb")


def test_apex_lamb_goes_on(timm: Any) -> None:  # noqa: F811
    """apex runs on CUDA only; its state, in its own form, is made from timm's, which is the same algorithm."""
    lamb = timm("lamb").Lamb
    whole = [nn.Parameter(torch.randn(4, 3)), nn.Parameter(torch.randn(5))]
    there = lamb(whole, weight_decay=0.01)
    train(whole, there, range(7))
    known = (
        "lr",
        "betas",
        "eps",
        "weight_decay",
        "bias_correction",
        "grad_averaging",
        "max_grad_norm",
        "step",
        "params",
    )
    saved = copy.deepcopy(there.state_dict())
    saved["param_groups"] = [{name: group[name] for name in known} for group in saved["param_groups"]]
    mine = [nn.Parameter(w.detach().clone()) for w in whole]
    here = LAMB.apex(mine, weight_decay=0.01)
    here.load_state_dict(convert_state(saved, "apex-lamb", here))
    train(whole, there, range(7, 17))
    train(mine, here, range(7, 17))
    for a, b in zip(mine, whole, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "option",
    [{"grad_averaging": False}, {"caution": True}, {"decoupled_decay": True}, {"corrected_weight_decay": True}],
    ids=str,
)
def test_options_without_counterpart_are_refused(timm: Any, option: dict[str, bool]) -> None:  # noqa: F811
    there = timm("lamb").Lamb([nn.Parameter(torch.ones(2))], weight_decay=0.01, **option)
    with pytest.raises(ValueError, match=f"{next(iter(option))}=.* has no counterpart"):
        convert_state(there.state_dict(), "timm-lamb", LAMB.timm([nn.Parameter(torch.ones(2))]))
    apex = apex_state()
    apex["param_groups"][0].update(option)
    with pytest.raises(ValueError, match="no counterpart"):
        convert_state(apex, "apex-lamb", LAMB.apex([nn.Parameter(torch.ones(2)) for _ in range(2)]))


def test_a_trainable_parameter_without_moments_needs_shared_steps() -> None:
    params = [nn.Parameter(torch.ones(2)) for _ in range(2)]
    late = apex_state()
    del late["state"][1]
    with pytest.raises(ValueError, match="parameter 1 has no moments after 3 steps"):
        convert_state(late, "apex-lamb", LAMB(params))
    assert convert_state(late, "apex-lamb", LAMB.apex(params))["state"][1] == {"step": torch.tensor(3.0)}
    params[1].requires_grad_(False)
    assert convert_state(late, "apex-lamb", LAMB(params))["state"].keys() == {0}
    fresh = apex_state(step=0)
    fresh["state"] = {}
    assert convert_state(fresh, "apex-lamb", LAMB([nn.Parameter(torch.ones(2)) for _ in range(2)]))["state"] == {}


def test_lars_refuses_dampening() -> None:
    def saved(**group: Any) -> dict[str, Any]:
        return {"state": {0: {"momentum_buffer": torch.ones(2)}}, "param_groups": [{"lr": 0.1, "params": [0], **group}]}

    optimizer = LARS([nn.Parameter(torch.ones(2))], momentum_correction=True)
    with pytest.raises(ValueError, match=r"dampening=0\.5 has no counterpart"):
        convert_state(saved(dampening=0.5), "timm-lars", optimizer)
    # The buffer has the rate outside there and here, so a rate of 0 loses nothing.
    buffer = convert_state(saved(lr=0.0), "timm-lars", optimizer)["state"][0]["momentum_buffer"]
    assert torch.equal(buffer, torch.ones(2))
