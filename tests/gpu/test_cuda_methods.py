"""The large-batch methods on a GPU: the same numbers as on the CPU, and no wait for the device in a step."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from disttrain.grads import clip_adaptive, clip_norm, clip_per_layer
from disttrain.nn import GhostBatchNorm2d
from disttrain.optim import EMA, LAMB, LARC, LARS, Muon, NovoGrad, layer_ratios

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def larc(params: Any, lr: Any, **others: Any) -> LARC:
    return LARC(torch.optim.SGD(params, lr, momentum=0.9, weight_decay=0.01))


def parameters(device: str, dtype: torch.dtype = torch.float32) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [
        nn.Parameter(torch.randn(s, generator=generator).to(device, dtype)) for s in ((64, 32), (64,), (8, 4, 3, 3))
    ]


def give_gradients(params: list[nn.Parameter], step: int) -> None:
    generator = torch.Generator().manual_seed(step + 1)
    for p in params:
        p.grad = torch.randn(p.shape, generator=generator).to(p)


@pytest.mark.parametrize("make", [LARS, LAMB, NovoGrad, Muon, larc])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_optimizers_as_on_the_cpu(make: Any, dtype: torch.dtype) -> None:
    there, here = parameters("cuda", dtype), parameters("cpu", dtype)
    for params in (there, here):
        optimizer = make(params, 0.05)
        for step in range(10):
            give_gradients(params, step)
            optimizer.step()
    tolerance = 1e-5 if dtype == torch.float32 else 3e-2
    for a, b in zip(there, here, strict=True):
        torch.testing.assert_close(a.cpu(), b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("make", [LARS, LAMB, NovoGrad, Muon, larc])
def test_a_step_does_not_wait_for_the_device(make: Any) -> None:
    params = parameters("cuda")
    optimizer, average = make(params, 0.05), EMA(params, half_life=100)
    give_gradients(params, 0)
    optimizer.step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for clip in (clip_norm, clip_per_layer, clip_adaptive):
            clip(params, 0.5)
        optimizer.step()
        average.update(32)
        with pytest.raises(RuntimeError, match="synchronizing"):
            params[0].sum().item()  # what a step that waits would raise
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("make", [LARS, LAMB, NovoGrad, Muon])
def test_a_step_can_be_captured(make: Any) -> None:
    """In a CUDA graph, with a learning rate that is changed between replays."""
    captured, eager = parameters("cuda"), parameters("cuda")
    rate = torch.tensor(0.05, device="cuda")
    optimizer, other = make(captured, rate, capturable=True), make(eager, 0.05)
    for params in (captured, eager):
        give_gradients(params, 0)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        optimizer.step()
    torch.cuda.current_stream().wait_stream(stream)
    other.step()
    graph = torch.cuda.CUDAGraph()
    before = [p.detach().clone() for p in captured]
    state = {p: {k: v.clone() for k, v in optimizer.state[p].items()} for p in captured}
    with torch.cuda.graph(graph):
        optimizer.step()
    for p, b in zip(captured, before, strict=True):  # capturing runs nothing, but be sure to start from the same place
        p.detach().copy_(b)
        for key, value in state[p].items():
            optimizer.state[p][key].copy_(value)
    for lr in (0.05, 0.01):
        rate.fill_(lr)
        other.param_groups[0]["lr"] = lr
        graph.replay()
        other.step()
    for a, b in zip(captured, eager, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_ghost_batch_norm_as_on_the_cpu(memory_format: torch.memory_format) -> None:
    x = torch.randn(37, 6, 5, 5, generator=torch.Generator().manual_seed(0))
    found = []
    for device in ("cpu", "cuda"):
        layer = GhostBatchNorm2d(6, 8).to(device)
        given = x.to(device).contiguous(memory_format=memory_format).requires_grad_()
        y = layer(given)
        (y * torch.linspace(0, 1, y.numel(), device=device).view_as(y)).sum().backward()
        found.append((y.detach().cpu(), given.grad.cpu(), layer.running_mean.cpu(), layer.running_var.cpu()))  # type: ignore[union-attr]
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_ratios_stay_on_the_device() -> None:
    params = parameters("cuda")
    optimizer = LAMB(params, 0.05, record=True)
    give_gradients(params, 0)
    optimizer.step()
    assert all(v.device.type == "cuda" for v in layer_ratios(optimizer).values())
