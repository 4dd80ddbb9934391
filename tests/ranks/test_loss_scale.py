"""LARS and its kin are almost blind to a gradient that was left scaled. So: the same weights at scale 1 and at 2^16."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.harness import every_launcher, launch

SCRIPT = """
import sys
import torch
from torch import nn
import disttrain
from disttrain.grads import clip_norm
from disttrain.optim import LAMB, LARC, LARS, Muon, NovoGrad, param_groups
from disttrain.precision import FP16

MAKE = {
    "sgd": lambda g: torch.optim.SGD(g, 0.1, momentum=0.9, weight_decay=0.01),
    "adamw": lambda g: torch.optim.AdamW(g, 0.01),
    "lars": lambda g: LARS(g, 5.0, weight_decay=0.01, eps=1e-3),
    "larc": lambda g: LARC(torch.optim.SGD(g, 0.1, momentum=0.9, weight_decay=0.01)),
    "lamb": lambda g: LAMB(g, 0.01),
    "lamb clipped": lambda g: LAMB.apex(g, 0.01),
    "novograd": lambda g: NovoGrad(g, 0.01, weight_decay=0.01),
    "muon": lambda g: Muon(g, 0.01),
}

def train(engine, make, scale):
    torch.manual_seed(3)
    bare = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3))
    model = engine.prepare(bare)
    optimizer = make(param_groups(bare))
    precision = FP16(torch.device("cpu"))
    precision.scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=1000)
    size, rank = engine.world.size, engine.world.rank
    for step in range(8):
        generator = torch.Generator().manual_seed(100 * step + rank)
        x, y = (torch.randn(12, n, generator=generator) for n in (6, 3))
        optimizer.zero_grad()
        for i in range(2):
            with engine.accumulating(last=i == 1):
                part = slice(6 * i, 6 * i + 6)
                losses = (model(x[part]) - y[part]).square().sum(1)
                engine.backward(precision.scale(losses), scale=1 / (12 * size))
        engine.reduce_gradients()
        precision.unscale_(optimizer)
        clip_norm(list(bare.parameters()), 2.0)
        assert precision.step(optimizer)
    return [p.detach() for p in bare.parameters()]

with disttrain.init(sys.argv[1], device="cpu") as engine:
    for name, make in MAKE.items():
        one, large = train(engine, make, 1.0), train(engine, make, 2.0**16)
        for a, b in zip(one, large):
            gap = float((a - b).abs().max() / a.abs().max())
            assert gap < 1e-6, (name, gap)
"""


@pytest.mark.parametrize(("launcher", "size"), [("none", 1), ("ranks", 2)])
def test_local_and_ddp(launcher: str, size: int, tmp_path: Path) -> None:
    script = tmp_path / "ranks.py"
    script.write_text(SCRIPT)
    launch(launcher, size, [str(script), "auto"]).check()


@pytest.mark.parametrize("launcher", every_launcher("horovodrun", "mpirun-horovod"))
def test_horovod(launcher: str, tmp_path: Path) -> None:
    script = tmp_path / "ranks.py"
    script.write_text(SCRIPT)
    launch(launcher, 2, [str(script), "horovod"]).check()
