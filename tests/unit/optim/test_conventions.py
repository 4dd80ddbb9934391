"""What every torch optimizer can do, ours can."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from disttrain.optim import LAMB, LARC, LARS, BatchInvariantAdam, Muon, NovoGrad, layer_ratios, param_groups

Make = Callable[..., Any]


def larc(params: Any, lr: Any = 0.1, **others: Any) -> LARC:
    return LARC(torch.optim.SGD(params, lr, momentum=0.9, weight_decay=0.01, **others))


OURS: list[Make] = [LARS, LAMB, NovoGrad, Muon, BatchInvariantAdam]
ALL: list[Make] = [*OURS, larc]


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Tanh(), nn.Linear(8, 3))


def backward(model: nn.Module, seed: int = 0, scale: float = 1.0) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(16, 6, generator=generator)
    dtype = next(model.parameters()).dtype
    (model(x.to(dtype)).float().square().mean() * scale).backward()


def trained(make: Make, steps: int = 5, **settings: Any) -> nn.Module:
    model = network()
    optimizer = make(model.parameters(), 0.05, **settings)
    for step in range(steps):
        optimizer.zero_grad()
        backward(model, step)
        optimizer.step()
    return model


def assert_same(a: nn.Module, b: nn.Module, rtol: float = 0.0) -> None:
    for x, y in zip(a.parameters(), b.parameters(), strict=True):
        torch.testing.assert_close(x, y, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("make", ALL)
def test_state_dict_round_trip(make: Make) -> None:
    model = network()
    optimizer = make(model.parameters(), 0.05)
    for step in range(3):
        optimizer.zero_grad()
        backward(model, step)
        optimizer.step()
    other = copy.deepcopy(model)
    fresh = make(other.parameters(), 0.9)
    fresh.load_state_dict(pickle.loads(pickle.dumps(optimizer.state_dict())))
    for m, o in ((model, optimizer), (other, fresh)):
        for step in range(3, 6):
            o.zero_grad()
            backward(m, step)
            o.step()
    assert_same(model, other)


@pytest.mark.parametrize("make", OURS)
def test_optimizers_survive_pickling_and_copying(make: Make) -> None:
    model = network()
    optimizer = make(model.parameters(), 0.05)
    backward(model)
    optimizer.step()
    again = pickle.loads(pickle.dumps(optimizer))
    assert again.state_dict()["param_groups"] == optimizer.state_dict()["param_groups"]
    copy.deepcopy(optimizer).step()


@pytest.mark.parametrize("make", ALL)
def test_closures(make: Make) -> None:
    model = network()
    optimizer = make(model.parameters(), 0.05)

    def closure() -> torch.Tensor:
        assert torch.is_grad_enabled()
        optimizer.zero_grad()
        loss = model(torch.ones(4, 6)).square().mean()
        loss.backward()
        return loss.detach()

    first = float(optimizer.step(closure))
    for _ in range(20):
        last = float(optimizer.step(closure))
    assert last < first
    assert optimizer.step() is None


@pytest.mark.parametrize("make", OURS)
def test_maximize_goes_the_other_way(make: Make) -> None:
    up, down = (trained(make, steps=1, maximize=maximize, weight_decay=0.0) for maximize in (True, False))
    for start, a, b in zip(network().parameters(), up.parameters(), down.parameters(), strict=True):
        torch.testing.assert_close(a - start, start - b, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("make", OURS)
def test_foreach_equals_single_tensor(make: Make) -> None:
    assert_same(trained(make, foreach=True), trained(make, foreach=False), rtol=1e-6)


@pytest.mark.parametrize("make", OURS)
def test_capturable_and_a_tensor_rate(make: Make) -> None:
    plain = trained(make)
    captured = trained(lambda params, lr, **kw: make(params, torch.tensor(lr), capturable=True, **kw))
    assert_same(plain, captured, rtol=1e-5)
    with pytest.raises(ValueError, match="tensor lr"):
        make(network().parameters(), torch.tensor(0.1))


@pytest.mark.parametrize("make", OURS)
def test_groups(make: Make) -> None:
    model = network()
    optimizer = make(model[0].parameters(), 0.05)
    optimizer.add_param_group({"params": list(model[3].parameters()), "lr": 0.0})
    before = model[3].weight.detach().clone()
    backward(model)
    optimizer.step()
    assert torch.equal(model[3].weight, before)
    assert optimizer.param_groups[1]["weight_decay"] == optimizer.param_groups[0]["weight_decay"]
    with pytest.raises(ValueError, match="more than one parameter group"):
        optimizer.add_param_group({"params": list(model[3].parameters())})
    # Horovod makes an optimizer anew from its groups alone.
    assert type(optimizer)(optimizer.param_groups).param_groups[0]["lr"] == 0.05


@pytest.mark.parametrize("make", ALL)
def test_grad_scaler(make: Make) -> None:
    """Scale 1 and 2^16 give the same weights, and an overflow moves nothing."""
    found = []
    for scale in (1.0, 2.0**16):
        model = network()
        optimizer = make(model.parameters(), 0.05)
        scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        for step in range(4):
            optimizer.zero_grad()
            scaler.scale(torch.zeros(()))  # it makes its scale when first used
            backward(model, step, scale=float(scaler.get_scale()))
            scaler.unscale_(optimizer)
            scaler.step(optimizer)
            scaler.update()
        found.append(model)
    assert_same(*found, rtol=1e-6)
    before = [p.detach().clone() for p in model.parameters()]
    scaler.scale(torch.ones(()))
    optimizer.zero_grad()
    backward(model)
    next(model.parameters()).grad.fill_(torch.inf)  # type: ignore[union-attr]
    scaler.step(optimizer)
    scaler.update()
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert scaler.get_scale() == 2.0**15


@pytest.mark.parametrize("make", ALL)
def test_torchs_schedulers(make: Make) -> None:
    model = network()
    optimizer = make(model.parameters(), 0.1)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=4)
    rates = []
    for _ in range(4):
        backward(model)
        optimizer.step()
        scheduler.step()
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates[-1] == pytest.approx(0.0, abs=1e-12)
    assert rates[1] == pytest.approx(0.05)


@pytest.mark.parametrize("make", OURS)
def test_torch_compile(make: Make) -> None:
    eager, compiled = network(), network()
    optimizers = make(eager.parameters(), 0.05), make(compiled.parameters(), 0.05)
    step = torch.compile(optimizers[1].step, backend="eager")
    for number in range(3):
        for model, optimizer in zip((eager, compiled), optimizers, strict=True):
            optimizer.zero_grad()
            backward(model, number)
        optimizers[0].step()
        step()
    assert_same(eager, compiled, rtol=1e-6)


@pytest.mark.parametrize("make", OURS)
def test_what_does_not_work_is_refused(make: Make) -> None:
    with pytest.raises(ValueError, match="lr is -1"):
        make(network().parameters(), -1.0)
    with pytest.raises(ValueError, match="weight_decay is -1"):
        make(network().parameters(), 0.1, weight_decay=-1)
    with pytest.raises(ValueError, match="differentiable"):
        make(network().parameters(), 0.1, differentiable=True)
    complex_param = nn.Parameter(torch.ones(2, dtype=torch.complex64))
    complex_param.grad = torch.ones_like(complex_param)
    with pytest.raises(RuntimeError, match="complex"):
        make([complex_param], 0.1).step()
    embedding = nn.Embedding(4, 2, sparse=True)
    embedding(torch.tensor([1])).sum().backward()
    with pytest.raises(RuntimeError, match="sparse"):
        make(embedding.parameters(), 0.1).step()


def test_wrong_arguments_of_each() -> None:
    params = list(network().parameters())
    for make, settings, message in (
        (LARS, {"momentum": 1.0}, "momentum is 1.0"),
        (LARS, {"nesterov": True, "momentum": 0.0}, "nesterov"),
        (LARS, {"momentum_correction": True, "lr_in_momentum": False}, "momentum_correction"),
        (LARS, {"trust_coefficient": 0.0}, "trust_coefficient"),
        (LAMB, {"betas": (1.0, 0.9)}, "betas"),
        (LAMB, {"pre_normalization": "apex"}, "pre_normalization"),
        (LAMB, {"phi_bounds": (2.0, 1.0)}, "phi_bounds"),
        (LAMB, {"trust_clip": 0.0}, "trust_clip"),
        (NovoGrad, {"eps": -1.0}, "eps"),
        (Muon, {"ns_steps": 0}, "ns_steps is 0; it must be at least 1"),
        (Muon, {"newton_schulz": "fp8"}, "newton_schulz is 'fp8'; it must be 'full' or 'bf16'"),
        (LAMB, {"adapt": "some"}, "adapt is 'some'; it must be True, False or 'decayed'"),
    ):
        with pytest.raises(ValueError, match=message):
            make(params, 0.1, **settings)  # type: ignore[operator]
    for make in OURS:
        with pytest.raises(TypeError, match="unexpected keyword argument 'weight_dekay'"):
            make(params, 0.1, weight_dekay=0.1)


def test_larc_gives_back_what_it_borrowed_even_when_the_step_fails() -> None:
    class Failing(torch.optim.SGD):
        def step(self, closure: Any = None) -> None:
            assert self.param_groups[0]["weight_decay"] == 0.0
            raise OSError("no")

    model = network()
    optimizer = LARC(Failing(model.parameters(), 0.1, weight_decay=0.3))
    backward(model)
    grads = [p.grad for p in model.parameters()]
    copies = [g.clone() for g in grads if g is not None]
    with pytest.raises(OSError, match="no"):
        optimizer.step()
    assert optimizer.param_groups[0]["weight_decay"] == 0.3
    assert all(p.grad is g for p, g in zip(model.parameters(), grads, strict=True))
    assert all(torch.equal(g, c) for g, c in zip(grads, copies, strict=True) if g is not None)


def test_larc_shares_groups_and_state() -> None:
    inner = torch.optim.SGD(network().parameters(), 0.1, momentum=0.9)
    outer = LARC(inner)
    outer.add_param_group({"params": [nn.Parameter(torch.ones(2))]})
    assert len(inner.param_groups) == 2
    assert outer.param_groups is inner.param_groups


@pytest.mark.parametrize("make", [LARS, LAMB])
def test_layer_ratios(make: Make) -> None:
    model = network()
    spared = param_groups(model, exclude_adaptation=lambda module, p: p.ndim == 1)
    optimizer = make(spared, 0.05, record=True)
    params = [p for group in optimizer.param_groups for p in group["params"]]
    assert all(bool(v.isnan().all()) for v in layer_ratios(optimizer).values())
    before = [p.detach().clone() for p in params]
    backward(model)
    params[0].grad = None
    optimizer.step()
    ratios = layer_ratios(optimizer)
    assert bool(ratios["trust_ratio"][0].isnan())
    for i, (p, w) in enumerate(zip(params, before, strict=True)):
        if p.grad is None:
            continue
        if float(w.norm()) > 0:
            expected = (p.detach() - w).norm() / w.norm()
            torch.testing.assert_close(ratios["update_to_weight"][i], expected, rtol=1e-4, atol=1e-6)
        if p.ndim == 1:
            assert float(ratios["trust_ratio"][i]) == 1.0
        else:
            assert float(ratios["trust_ratio"][i]) != 1.0
