"""Ranks and micro-batches, simulated in one process, against one process with the whole batch."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import accumulate, pairwise

import pytest
import torch
from torch import Tensor, nn

from disttrain.data.shares import ghost_borders
from disttrain.nn import (
    GhostBatchNorm,
    GhostBatchNorm1d,
    GhostBatchNorm2d,
    defer_statistics,
    divide_statistics,
    exchange_statistics,
    fold_statistics,
    ghost_count,
    ghost_layers,
)
from disttrain.nn.ghost_norm import StatsUpdate

RULES: list[StatsUpdate] = ["mean", "sequential"]
GHOST = 4
# For each rank, how many ghosts each of its micro-batches has; the updates' batches need not be equal.
SPLITS: dict[str, list[list[list[int]]]] = {
    "one rank, one micro-batch": [[[6]], [[6]], [[6]]],
    "one rank, accumulating": [[[2, 3, 1]], [[1, 1, 4]], [[3, 3]]],
    "two ranks": [[[3], [3]], [[3], [3]], [[3], [3]]],
    "uneven": [[[1, 2], [2], [1]], [[4], [1], [1]], [[2, 1], [1, 1], [1]]],
    "a rank without samples": [[[3, 1], [2], []], [[1], [], [5]], [[], [2, 2], [2]]],
}


def network(rule: StatsUpdate) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1),
        GhostBatchNorm2d(3, GHOST, stats_update=rule),
        nn.ReLU(),
        nn.Conv2d(3, 4, 3),
        GhostBatchNorm2d(4, GHOST, momentum=0.3, stats_update=rule),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(4 * 4, 5),
        GhostBatchNorm1d(5, GHOST, stats_update=rule),
    ).double()


def exchange(models: Sequence[nn.Module]) -> None:
    """What the ranks do together: each in turn up to its all-reduce, then each to the end."""
    sent: list[Tensor] = []

    class Waiting(Exception):
        pass

    def send(flat: Tensor) -> None:
        sent.append(flat.clone())
        raise Waiting

    for model in models:
        with pytest.raises(Waiting):
            exchange_statistics(model, send)
    total = torch.stack(sent).sum(0)
    for model in models:
        exchange_statistics(model, lambda flat: flat.copy_(total))


def buffers(model: nn.Module) -> dict[str, Tensor]:
    return {name: b.clone() for name, b in model.named_buffers()}


def close(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("remainder", [0, 3])
@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("rule", RULES)
def test_any_split_gives_the_same_gradients_and_statistics(rule: StatsUpdate, split: str, remainder: int) -> None:
    whole = network(rule)
    ranks = [copy.deepcopy(whole) for _ in SPLITS[split][0]]
    for model in ranks:
        divide_statistics(model, len(ranks))
    generator = torch.Generator().manual_seed(1)
    for update, per_rank in enumerate(SPLITS[split]):
        ghosts = sum(map(sum, per_rank))
        x = torch.randn(ghosts * GHOST + remainder, 2, 4, 4, dtype=torch.float64, generator=generator) * 2 + 1
        upstream = torch.randn(len(x), 5, dtype=torch.float64, generator=generator)
        borders = ghost_borders(len(x), GHOST)
        whole.zero_grad()
        (whole(x) * upstream).sum().backward()
        before = 0
        for model, micros in zip(ranks, per_rank, strict=True):
            model.zero_grad()
            defer_statistics(model)
            cuts = list(accumulate(micros, initial=before))
            for lo, hi in pairwise(cuts):
                part = slice(borders[lo], borders[hi])
                (model(x[part]) * upstream[part]).sum().backward()
            fold_statistics(model, samples=len(x), ghosts_before=before, ghosts=ghosts)
            before = cuts[-1]
        for parameters in zip(*(model.parameters() for model in (whole, *ranks)), strict=True):
            expected, *parts = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
            torch.testing.assert_close(torch.stack(parts).sum(0), expected, rtol=1e-12, atol=1e-12)
        if update != 1:  # also over two updates without an exchange
            exchange(ranks)
            for model in ranks:
                close(buffers(model), buffers(whole))
                divide_statistics(model, len(ranks))


@pytest.mark.parametrize("rule", RULES)
def test_float32_loses_nothing_worth_mentioning(rule: StatsUpdate) -> None:
    torch.manual_seed(2)
    whole = GhostBatchNorm1d(6, GHOST, stats_update=rule)
    ranks = [copy.deepcopy(whole) for _ in range(3)]
    for model in ranks:
        divide_statistics(model, 3)
    for _ in range(200):
        x = torch.randn(36, 6) + 3
        whole(x)
        for rank, model in enumerate(ranks):
            defer_statistics(model)
            model(x[12 * rank : 12 * rank + 12])
            fold_statistics(model, samples=36, ghosts_before=3 * rank, ghosts=9)
    exchange(ranks)
    torch.testing.assert_close(buffers(ranks[0]), buffers(whole), rtol=1e-6, atol=1e-6)


def test_one_all_reduce_and_none_without_ghosts() -> None:
    calls: list[int] = []
    exchange_statistics(network("mean"), lambda flat: calls.append(flat.numel()))
    exchange_statistics(nn.BatchNorm1d(3), lambda flat: calls.append(-1))
    assert calls == [2 * (3 + 4 + 5) + 3]


def test_an_update_that_is_tried_again_counts_once() -> None:
    once, twice = network("sequential"), network("sequential")
    x = torch.randn(12, 2, 4, 4, dtype=torch.float64)
    defer_statistics(twice)
    twice(x + 5)
    for model in (once, twice):
        defer_statistics(model)
        model(x)
        fold_statistics(model, samples=12, ghosts_before=0, ghosts=3)
    close(buffers(twice), buffers(once))


def test_what_was_folded_is_not_folded_again() -> None:
    """One defer before two updates, or one before each."""
    once, twice = network("mean"), network("mean")
    for model in (once, twice):
        defer_statistics(model)
        for seed in range(2):
            if model is twice:
                defer_statistics(model)
            x = torch.randn(8, 2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
            model(x)
            fold_statistics(model, samples=8, ghosts_before=0, ghosts=2)
    close(buffers(twice), buffers(once))


def test_a_second_exchange_changes_nothing() -> None:
    ranks = [network("mean") for _ in range(2)]
    for rank, model in enumerate(ranks):
        divide_statistics(model, 2)
        defer_statistics(model)
        model(torch.randn(8, 2, 4, 4, dtype=torch.float64))
        fold_statistics(model, samples=16, ghosts_before=2 * rank, ghosts=4)
    exchange(ranks)
    complete = buffers(ranks[0])
    exchange(ranks)
    for model in ranks:
        close(buffers(model), complete)


@pytest.mark.parametrize("rule", RULES)
def test_a_frozen_layer_keeps_its_statistics_and_normalises_with_them(rule: StatsUpdate) -> None:
    models = [network(rule) for _ in range(2)]
    for model in models:
        frozen = ghost_layers(model)[0]
        frozen.running_mean.fill_(0.5)  # type: ignore[union-attr]
        frozen.running_var.fill_(4.0)  # type: ignore[union-attr]
        frozen.eval()
        divide_statistics(model, 2)
        x = torch.randn(8, 3, 4, 4, dtype=torch.float64)
        torch.testing.assert_close(frozen(x), (x - 0.5) / (4.0 + frozen.eps) ** 0.5, rtol=1e-12, atol=1e-12)
        for _ in range(3):
            defer_statistics(model)
            model(torch.randn(8, 2, 4, 4, dtype=torch.float64))
            fold_statistics(model, samples=16, ghosts_before=0, ghosts=4)
            defer_statistics(model)  # an update in which this rank has no sample
            fold_statistics(model, samples=16, ghosts_before=4, ghosts=4)
            assert frozen.running_var.tolist() == [4.0] * 3  # type: ignore[union-attr]
        assert frozen.num_batches_tracked.item() == 0  # type: ignore[union-attr]
    exchange(models)
    for model in models:
        assert ghost_layers(model)[0].running_mean.tolist() == [0.5] * 3  # type: ignore[union-attr]
        assert ghost_layers(model)[0].running_var.tolist() == [4.0] * 3  # type: ignore[union-attr]
        assert ghost_layers(model)[1].running_mean.abs().min() > 0  # type: ignore[union-attr]


@pytest.mark.parametrize("rule", RULES)
def test_a_layer_that_does_not_run_keeps_its_statistics(rule: StatsUpdate) -> None:
    def bank() -> nn.ModuleList:
        layers = (GhostBatchNorm1d(3, GHOST, stats_update=rule).double() for _ in range(2))
        return nn.ModuleList(layers)

    whole, ranks = bank(), [bank(), bank()]
    for model in ranks:
        divide_statistics(model, 2)
    for update in range(2000):
        x = torch.randn(16, 3, dtype=torch.float64)
        used = 0 if update else slice(None)  # the other one runs in the first update only
        for layer in whole[:] if update == 0 else [whole[0]]:
            layer(x)
        for rank, model in enumerate(ranks):
            defer_statistics(model)
            for layer in model[used] if update == 0 else [model[0]]:  # type: ignore[union-attr]
                layer(x[8 * rank : 8 * rank + 8])
            fold_statistics(model, samples=16, ghosts_before=2 * rank, ghosts=4)
    exchange(ranks)
    for mine, expected in zip(ranks[0].parameters(), whole.parameters(), strict=True):
        assert mine.isfinite().all()
        assert torch.equal(mine, expected)
    for i in range(2):
        for name in ("running_mean", "running_var"):
            torch.testing.assert_close(getattr(ranks[1][i], name), getattr(whole[i], name), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("ghosts", [2, 400])  # 0.1 to the power of -400 is not a number any more
@pytest.mark.parametrize("rule", RULES)
def test_a_layer_used_twice_in_a_forward(rule: StatsUpdate, ghosts: int) -> None:
    """One value for all ghosts and samples has itself as its average, however they are weighted."""
    ranks = [GhostBatchNorm1d(1, GHOST, momentum=0.9, stats_update=rule).double() for _ in range(2)]
    x = torch.tensor([[2.0], [4.0]] * (GHOST // 2) * ghosts, dtype=torch.float64)  # mean 3
    for model in ranks:
        model.running_mean.fill_(3.0)  # type: ignore[union-attr]
        divide_statistics(model, 2)
    for _ in range(20):
        for rank, model in enumerate(ranks):
            defer_statistics(model)
            model(x)
            model(x)
            fold_statistics(model, samples=2 * len(x), ghosts_before=ghosts * rank, ghosts=2 * ghosts)
    exchange(ranks)
    for model in ranks:
        assert model.running_mean is not None
        assert model.running_var is not None
        assert model.running_mean.item() == pytest.approx(3.0, abs=1e-12)
        assert model.running_var.item() == pytest.approx(4 / 3, abs=1e-9)


def test_mean_does_not_depend_on_the_order_of_ghosts() -> None:
    x = torch.randn(16, 3, dtype=torch.float64)
    found = []
    for order in (slice(None), torch.arange(15, -1, -1)):
        layer = GhostBatchNorm1d(3, GHOST, stats_update="mean").double()
        layer(x[order])
        found.append(buffers(layer))
    close(*found)


def test_fold_without_defer_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="call defer_statistics before the first forward"):
        fold_statistics(network("mean"), samples=8, ghosts_before=0, ghosts=ghost_count(8, GHOST))
    fold_statistics(nn.Linear(2, 2), samples=8, ghosts_before=0, ghosts=2)


def test_layers_without_statistics_take_no_part() -> None:
    layer = GhostBatchNorm2d(3, GHOST, track_running_stats=False)
    assert ghost_layers(layer) == []
    assert isinstance(layer, GhostBatchNorm)
    defer_statistics(layer)
    layer(torch.randn(8, 3, 2, 2))
    fold_statistics(layer, samples=8, ghosts_before=0, ghosts=2)
    assert layer.deferred is None
