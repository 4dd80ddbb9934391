"""Compressed and adaptive gradient exchanges against a reference in float64 that is worked out on every rank."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.harness import every_launcher, launch

# Every rank knows every rank's samples, so it can work out all gradients by itself.
SCRIPT = """
import sys
import torch
from torch import nn
import disttrain
from disttrain.engine.exchange import Exchange
from disttrain.errors import InputError

mode = sys.argv[2]

def reference(size):
    per_rank = []
    for rank in range(size):
        model, x, y = data(rank, torch.float64)
        ((model(x) - y) ** 2).sum(1).mean().backward()
        per_rank.append([p.grad for p in model.parameters()])
    return per_rank

def data(rank, dtype):
    torch.manual_seed(7)
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).to(dtype)
    generator = torch.Generator().manual_seed(100 + rank)
    x, y = (torch.randn(8, n, generator=generator, dtype=torch.float64) for n in (6, 3))
    return model, x.to(dtype), y.to(dtype)

def adasum(a, b):  # Maleki et al. 2020, eq. 2
    dot = (a * b).sum()
    return (1 - dot / (2 * a.square().sum())) * a + (1 - dot / (2 * b.square().sum())) * b

def tree(parts):
    while len(parts) > 1:
        parts = [adasum(a, b) for a, b in zip(parts[::2], parts[1::2])]
    return parts[0]

REFUSED = {
    "ddp": {Exchange(reduction="adasum"): "Horovod's"},
    "horovod": {Exchange(reduction="adasum"): "power of two", Exchange(compression="bf16"): "Horovod has none and fp16",
                Exchange(compression="powersgd"): "Horovod has none and fp16"},
}

def check(engine, exchange):
    size = engine.world.size
    model, x, y = data(engine.world.rank, torch.float32)
    model = engine.prepare(model, exchange=exchange)
    for step in range(6):
        for p in model.parameters():
            p.grad = None
        with engine.accumulating(last=False):
            engine.backward(((model(x[:3]) - y[:3]) ** 2).sum(1), scale=1 / (8 * size))
        with engine.accumulating(last=True):
            engine.backward(((model(x[3:]) - y[3:]) ** 2).sum(1), scale=1 / (8 * size))
        engine.reduce_gradients()
    parts = list(zip(*reference(size)))
    expected = [tree(list(p)) if mode == "adasum" else sum(p) / size for p in parts]
    tolerance = {"none": 1e-6, "fp16": 2e-3, "bf16": 2e-2, "powersgd": 2e-5, "adasum": 1e-5}[mode]
    for p, e in zip(model.parameters(), expected):
        gap = float((p.grad.double() - e).abs().max() / e.abs().max())
        assert gap < tolerance, (mode, gap)
        if mode in ("fp16", "bf16"):
            assert gap > 1e-7, "nothing was compressed"
    if mode == "adasum":
        means = [sum(p) / size for p in parts]
        assert all(float((a - b).abs().max()) > 1e-3 for a, b in zip(expected, means)), "adasum is not the mean"
    everybody = engine.all_gather_object([p.grad.tolist() for p in model.parameters()])
    assert all(other == everybody[0] for other in everybody)

with disttrain.init(sys.argv[1], device="cpu") as engine:
    if mode == "refused":
        for exchange, word in REFUSED[engine.name].items():
            try:
                engine.prepare(nn.Linear(2, 2), exchange=exchange)
                print("NOT REFUSED")
            except InputError as error:
                print(error) if word in str(error) else print("OTHER REASON", error)
    else:
        exchange = Exchange(reduction="adasum") if mode == "adasum" else Exchange(compression=mode, powersgd_rank=3)
        check(engine, exchange)
"""


def run(launcher: str, size: int, mode: str, tmp_path: Path) -> str:
    script = tmp_path / "ranks.py"
    script.write_text(SCRIPT)
    engine = "ddp" if launcher == "ranks" else "horovod"
    return launch(launcher, size, [str(script), engine, mode]).check().text


@pytest.mark.parametrize("mode", ["none", "fp16", "bf16", "powersgd"])
def test_ddp(mode: str, tmp_path: Path) -> None:
    run("ranks", 2, mode, tmp_path)


@pytest.mark.parametrize("launcher", every_launcher("horovodrun", "mpirun-horovod"))
@pytest.mark.parametrize("mode", ["none", "fp16"])
def test_horovod(launcher: str, mode: str, tmp_path: Path) -> None:
    run(launcher, 2, mode, tmp_path)


@pytest.mark.parametrize("launcher", every_launcher("mpirun-horovod"))
@pytest.mark.parametrize("size", [2, 4])
def test_adasum_is_the_papers_tree(launcher: str, size: int, tmp_path: Path) -> None:
    run(launcher, size, "adasum", tmp_path)


@pytest.mark.parametrize(
    ("launcher", "size"),
    [("ranks", 2), *[pytest.param(*p.values, 3, marks=p.marks) for p in every_launcher("mpirun-horovod")]],
)
def test_what_an_engine_cannot_do_is_refused(launcher: str, size: int, tmp_path: Path) -> None:
    said = run(launcher, size, "refused", tmp_path)
    assert "NOT REFUSED" not in said
    assert "OTHER REASON" not in said
    assert "communication.reduction adasum" in said
