"""Ghost batch norm against torch's batch norm, applied to one chunk after the other."""

from __future__ import annotations

import copy
import warnings
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from disttrain.data.shares import ghost_borders
from disttrain.nn import (
    GhostBatchNorm,
    GhostBatchNorm1d,
    GhostBatchNorm2d,
    GhostBatchNorm3d,
    defer_statistics,
    fold_statistics,
    ghost_count,
)
from disttrain.nn.ghost_norm import StatsUpdate

KINDS: dict[str, tuple[type[GhostBatchNorm], type[nn.Module], tuple[int, ...]]] = {
    "1d": (GhostBatchNorm1d, nn.BatchNorm1d, (5,)),
    "1d length": (GhostBatchNorm1d, nn.BatchNorm1d, (5, 3)),
    "2d": (GhostBatchNorm2d, nn.BatchNorm2d, (5, 2, 3)),
    "3d": (GhostBatchNorm3d, nn.BatchNorm3d, (5, 2, 1, 3)),
}
RULES: list[StatsUpdate] = ["mean", "sequential"]


def pair(kind: str, ghost_size: int, **options: Any) -> tuple[GhostBatchNorm, Any, tuple[int, ...]]:
    ghost, plain, shape = KINDS[kind]
    layers = ghost(5, ghost_size, **options).double(), plain(5).double()  # type: ignore[call-arg,arg-type]
    for layer in layers:
        torch.manual_seed(1)
        nn.init.normal_(layer.weight)  # type: ignore[arg-type]
        nn.init.normal_(layer.bias)  # type: ignore[arg-type]
    return *layers, shape


def chunks(plain: Any, x: Tensor, sizes: list[int], rule: str) -> Tensor:
    """The oracle: torch's batch norm on every ghost; by rule ``mean`` its statistics start from the same place each time."""
    start = torch.stack([plain.running_mean, plain.running_var])
    running, results, found = start.clone(), [], []
    for part in torch.split(x, sizes):
        running = (start if rule == "mean" else running).clone()  # in place, torch would spoil what backward needs
        results.append(F.batch_norm(part, *running, plain.weight, plain.bias, True, plain.momentum, plain.eps))
        found.append(running)
    if rule == "mean":
        shares = torch.tensor(sizes, dtype=torch.float64) / sum(sizes)
        running = (torch.stack(found) * shares[:, None, None]).sum(0)
    plain.running_mean, plain.running_var = running.clone()
    return torch.cat(results)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("samples", "ghost_size"), [(12, 4), (14, 4), (7, 4), (4, 4), (3, 4), (9, 2), (8, 7)])
@pytest.mark.parametrize("kind", KINDS)
def test_like_torchs_layer_on_each_ghost(kind: str, samples: int, ghost_size: int, rule: StatsUpdate) -> None:
    ghost, plain, shape = pair(kind, ghost_size, stats_update=rule, momentum=0.1)
    torch.manual_seed(0)
    for _ in range(3):  # the running statistics do not start from their initial values only
        x = torch.randn(samples, *shape, dtype=torch.float64) * 3 + 1
        ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
        upstream = torch.randn_like(x)
        results = ghost(ours), chunks(plain, theirs, ghost_sizes(samples, ghost_size), rule)
        torch.testing.assert_close(*results, rtol=0, atol=1e-12)
        for result in results:
            (result * upstream).sum().backward()
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=0, atol=1e-12)
    for name in ("weight", "bias"):
        torch.testing.assert_close(getattr(ghost, name).grad, getattr(plain, name).grad, rtol=1e-12, atol=1e-12)
    for name in ("running_mean", "running_var"):
        torch.testing.assert_close(getattr(ghost, name), getattr(plain, name), rtol=1e-12, atol=1e-12)


def test_the_rule_of_the_methods_in_numbers() -> None:
    """Two ghosts, one channel: means 1 and 5, unbiased variances 2 and 8."""
    x = torch.tensor([[0.0], [2.0], [3.0], [7.0]], dtype=torch.float64)
    for rule, mean, variance in [("mean", 0.5 * 3, 0.5 + 0.5 * 5), ("sequential", 0.25 + 2.5, 0.25 + 0.5 + 4.0)]:
        layer = GhostBatchNorm1d(1, 2, momentum=0.5, stats_update=rule, dtype=torch.float64)  # type: ignore[arg-type]
        layer(x)
        assert layer.running_mean is not None
        assert layer.running_var is not None
        assert layer.running_mean.item() == pytest.approx(mean, abs=1e-12)
        assert layer.running_var.item() == pytest.approx(variance, abs=1e-12)


def test_evaluation_is_torchs_and_knows_no_ghosts() -> None:
    ghost, plain, shape = pair("2d", 4)
    ghost(torch.randn(8, *shape, dtype=torch.float64))
    plain.load_state_dict(ghost.state_dict())
    x = torch.randn(7, *shape, dtype=torch.float64)
    ghost.eval()
    plain.eval()
    assert torch.equal(ghost(x), plain(x))
    assert torch.equal(ghost(x)[:1], ghost(x[:1]))


def test_checkpoints_go_both_ways() -> None:
    ghost, plain, _ = pair("2d", 4)
    assert list(ghost.state_dict()) == list(plain.state_dict())
    defer_statistics(ghost)
    assert list(ghost.state_dict()) == list(plain.state_dict())
    ghost.load_state_dict(plain.state_dict())
    plain.load_state_dict(ghost.state_dict())


@pytest.mark.parametrize("options", [{"affine": False}, {"track_running_stats": False}])
def test_without_parameters_or_statistics(options: dict[str, bool]) -> None:
    layer = GhostBatchNorm2d(5, 4, dtype=torch.float64, **options)  # type: ignore[arg-type]
    x = torch.randn(8, 5, 2, 3, dtype=torch.float64)
    expected = torch.cat([F.batch_norm(part, None, None, training=True) for part in x.split(4)])
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("samples", [12, 14])
@pytest.mark.parametrize(
    ("kind", "layout"), [("2d", torch.channels_last), ("3d", torch.channels_last_3d)], ids=["2d", "3d"]
)
def test_channels_last(kind: str, layout: torch.memory_format, samples: int) -> None:
    layer, _, shape = pair(kind, 4)
    x = torch.randn(samples, *(2 * side for side in shape[1:-1]), 3, dtype=torch.float64).unsqueeze(1)
    x = x.repeat(1, 5, *[1] * (x.dim() - 2)) * torch.arange(1, 6).view(1, 5, *[1] * (x.dim() - 2))
    plain = layer(x)
    moved = layer(x.contiguous(memory_format=layout))
    assert moved.is_contiguous(memory_format=layout)
    assert not moved.is_contiguous()
    torch.testing.assert_close(moved, plain, rtol=0, atol=1e-12)


@pytest.mark.parametrize("rule", RULES)
def test_autocast_does_not_round_the_statistics(rule: StatsUpdate) -> None:
    x = torch.randn(16, 5, 3, 3) * 300  # variances beyond float16
    plain, cast = (GhostBatchNorm2d(5, 4, stats_update=rule) for _ in range(2))
    plain(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert cast(x).dtype == torch.float32
        assert cast(x.bfloat16()).dtype == torch.bfloat16
    repeated = GhostBatchNorm2d(5, 4, stats_update=rule)
    repeated(x)
    repeated(x.bfloat16())
    assert torch.equal(cast.running_var, repeated.running_var)  # type: ignore[arg-type]
    assert torch.equal(cast.running_mean, repeated.running_mean)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_model_in_low_precision(dtype: torch.dtype) -> None:
    layer = GhostBatchNorm2d(5, 4).to(dtype)
    x = torch.randn(14, 5, 3, 3, dtype=dtype, requires_grad=True)
    result = layer(x)
    result.float().square().sum().backward()
    assert result.dtype == dtype
    assert layer.weight.grad is not None
    assert layer.weight.grad.dtype == dtype
    assert x.grad is not None
    wide = GhostBatchNorm2d(5, 4)
    torch.testing.assert_close(result.float(), wide(x.detach().float()), rtol=0, atol=0.02)


@pytest.mark.parametrize("deferred", [False, True])
@pytest.mark.parametrize("rule", RULES)
def test_one_graph_however_many_micro_batches(rule: StatsUpdate, deferred: bool) -> None:
    graphs = 0

    def backend(graph: torch.fx.GraphModule, _: list[Tensor]) -> Any:
        nonlocal graphs
        graphs += 1
        return graph.forward

    layers = [GhostBatchNorm2d(5, 4, stats_update=rule) for _ in range(2)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, while it compiles
        compiled = torch.compile(layers[0], backend=backend, fullgraph=True)
        for _ in range(2):
            if deferred:
                for layer in layers:
                    defer_statistics(layer)
            for _ in range(10):
                x = torch.randn(10, 5, 3, 3)
                torch.testing.assert_close(compiled(x), layers[1](x), rtol=0, atol=1e-6)
            if deferred:
                for layer in layers:
                    fold_statistics(layer, samples=100, ghosts_before=0, ghosts=20)
    torch.compiler.reset()
    assert graphs == 1
    torch.testing.assert_close(dict(layers[0].state_dict()), dict(layers[1].state_dict()))


def test_an_empty_batch_has_no_ghosts() -> None:
    layer, _, shape = pair("2d", 4)
    before = copy.deepcopy(layer.state_dict())
    result = layer(torch.zeros(0, *shape, dtype=torch.float64))
    result.sum().backward()
    assert result.shape == (0, *shape)
    assert layer.weight.grad is not None
    assert layer.weight.grad.count_nonzero() == 0
    torch.testing.assert_close(layer.state_dict(), before, rtol=0, atol=0)


def test_what_is_refused() -> None:
    for samples, size in [(4, 1), (1, 4)]:
        with pytest.raises(ValueError, match=rf"single value per channel .*\(batch {samples}, ghost_size {size}"):
            GhostBatchNorm1d(3, size)(torch.randn(samples, 3))
    assert GhostBatchNorm1d(3, 1)(torch.randn(4, 3, 2)).shape == (4, 3, 2)
    assert GhostBatchNorm1d(3, 1).eval()(torch.randn(1, 3)).shape == (1, 3)
    with pytest.raises(ValueError, match="ghost_size is 0; it must be at least 1"):
        GhostBatchNorm1d(3, 0)
    with pytest.raises(ValueError, match="stats_update is 'median'; it must be 'mean' or 'sequential'"):
        GhostBatchNorm1d(3, 2, stats_update="median")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="momentum=None"):
        GhostBatchNorm1d(3, 2, momentum=None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected 4D input"):
        GhostBatchNorm2d(3, 2)(torch.randn(4, 3))
    with pytest.raises(ValueError, match="ghost_size is 0; it must be at least 1"):
        ghost_count(4, 0)


def ghost_sizes(samples: int, ghost_size: int) -> list[int]:
    return [hi - lo for lo, hi in pairwise(ghost_borders(samples, ghost_size))]


def test_sizes_cover_the_batch() -> None:
    for samples in range(40):
        for size in range(1, 12):
            sizes = ghost_sizes(samples, size)
            assert sum(sizes) == samples
            assert len(sizes) == ghost_count(samples, size)
            assert all(s == size for s in sizes[:-1])
            assert samples < size or all(size <= s < 2 * size for s in sizes)


def test_ghost_size_is_part_of_the_name() -> None:
    assert "ghost_size=4, stats_update=sequential" in repr(GhostBatchNorm2d(3, 4))
