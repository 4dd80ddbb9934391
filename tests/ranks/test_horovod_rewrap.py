"""Horovod's own DistributedOptimizer makes an optimizer anew from its groups alone; ours lose nothing by it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.harness import every_launcher, launch

SCRIPT = """
import torch
import horovod.torch as hvd
from torch import nn
from disttrain.optim import LAMB, LARS, Muon, NovoGrad, param_groups

MAKE = {
    "lars": lambda g: LARS(g, 0.7, eps=0.1, lr_in_momentum=False, nesterov=True, trust_coefficient=0.05, weight_decay=0.01),
    "lamb": lambda g: LAMB(g, 0.02, betas=(0.8, 0.9), eps=0.01, bias_correction=False, pre_normalization="clip",
                           max_grad_norm=0.3, phi_bounds=(0.1, 1.0), trust_clip=0.9),
    "novograd": lambda g: NovoGrad(g, 0.02, betas=(0.7, 0.8), eps=0.1, grad_averaging=True, amsgrad=True),
    "muon": lambda g: Muon(g, 0.02, momentum=0.8, nesterov=False, ns_steps=3, betas=(0.7, 0.8), eps=0.1),
}

def network():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 2))

def loss(model, rank, step):
    x = torch.randn(4, 5, generator=torch.Generator().manual_seed(10 * step + rank))
    return model(x).square().mean()

hvd.init()
for name, make in MAKE.items():
    model, alone = network(), network()
    wrapped = hvd.DistributedOptimizer(
        make(param_groups(model, exclude_adaptation=lambda m, p: p.ndim == 1)), named_parameters=model.named_parameters()
    )
    plain = make(param_groups(alone, exclude_adaptation=lambda m, p: p.ndim == 1))
    for mine, theirs in zip(wrapped.param_groups, plain.param_groups):
        kept = {k: v for k, v in mine.items() if k != "params"}
        assert kept == {k: v for k, v in theirs.items() if k != "params"}, (name, kept)
    for step in range(5):
        wrapped.zero_grad()
        loss(model, hvd.rank(), step).backward()
        wrapped.step()
        plain.zero_grad()
        sum(loss(alone, rank, step) for rank in range(hvd.size())).div(hvd.size()).backward()
        plain.step()
    for a, b in zip(model.parameters(), alone.parameters()):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
hvd.shutdown()
"""


@pytest.mark.parametrize("launcher", every_launcher("horovodrun"))
def test_hyper_parameters_survive(launcher: str, tmp_path: Path) -> None:
    script = tmp_path / "ranks.py"
    script.write_text(SCRIPT)
    launch(launcher, 2, [str(script)]).check()
