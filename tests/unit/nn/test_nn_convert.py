"""Exchanging layers in a model."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from disttrain.nn import (
    GhostBatchNorm,
    GhostBatchNorm1d,
    GhostBatchNorm2d,
    GhostBatchNorm3d,
    SyncBatchNorm,
    convert_batch_norm,
    convert_ghost_batch_norm,
    convert_sync_batch_norm,
)


class Activated(nn.BatchNorm2d):
    """As timm has it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).relu()


def model() -> nn.Sequential:
    torch.manual_seed(0)
    inner = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3, eps=1e-3, momentum=0.2), nn.ReLU())
    tail = nn.Sequential(nn.Flatten(), nn.Linear(12, 4), nn.BatchNorm1d(4, affine=False))
    made = nn.Sequential(inner, tail, nn.BatchNorm1d(4, track_running_stats=False)).double()
    made(torch.randn(6, 2, 2, 2, dtype=torch.float64))
    made[1].eval()
    return made


def test_there_and_back() -> None:
    before = model()
    state = copy.deepcopy(before.state_dict())
    parameters, buffers = dict(before.named_parameters()), dict(before.named_buffers())
    after = convert_ghost_batch_norm(before, 3, "mean")
    assert after is before
    norms = [m for m in after.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert [type(m) for m in norms] == [GhostBatchNorm2d, GhostBatchNorm1d, GhostBatchNorm1d]
    assert [(m.eps, m.momentum, m.affine, m.track_running_stats, m.training) for m in norms] == [
        (1e-3, 0.2, True, True, True),
        (1e-5, 0.1, False, True, False),
        (1e-5, 0.1, True, False, True),
    ]
    assert {(m.ghost_size, m.stats_update) for m in norms} == {(3, "mean")}  # type: ignore[attr-defined]
    # An optimizer made before goes on with the same objects.
    assert all(p is parameters[name] for name, p in after.named_parameters())
    assert all(b is buffers[name] for name, b in after.named_buffers())
    torch.testing.assert_close(after.state_dict(), state, rtol=0, atol=0)

    back = convert_batch_norm(after)
    kinds = [type(m) for m in back.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert kinds == [nn.BatchNorm2d, nn.BatchNorm1d, nn.BatchNorm1d]
    assert all(p is parameters[name] for name, p in back.named_parameters())
    assert not back[1].training
    x = torch.randn(6, 2, 2, 2, dtype=torch.float64)
    torch.testing.assert_close(back(x), model()(x), rtol=0, atol=1e-12)


def test_dtype_and_device() -> None:
    with torch.device("meta"):
        made = convert_ghost_batch_norm(nn.Sequential(nn.BatchNorm3d(3, dtype=torch.float16)), 2)
    layer = made[0]  # type: ignore[index]
    assert isinstance(layer, GhostBatchNorm3d)
    assert {t.device.type for t in made.state_dict().values()} == {"meta"}
    assert layer.weight.dtype == torch.float16


def test_again_changes_size_and_rule_only() -> None:
    made = convert_ghost_batch_norm(model(), 3)
    layers = [m for m in made.modules() if isinstance(m, GhostBatchNorm)]
    assert convert_ghost_batch_norm(made, 5, "mean") is made
    assert [m for m in made.modules() if isinstance(m, GhostBatchNorm)] == layers
    assert {(m.ghost_size, m.stats_update) for m in layers} == {(5, "mean")}
    with pytest.raises(ValueError, match="ghost_size is 0"):
        convert_ghost_batch_norm(made, 0)


def test_a_model_that_is_a_layer() -> None:
    layer = nn.BatchNorm2d(3)
    ghost = convert_ghost_batch_norm(layer, 4)
    assert isinstance(ghost, GhostBatchNorm2d)
    assert ghost.weight is layer.weight
    assert type(convert_batch_norm(ghost)) is nn.BatchNorm2d
    assert convert_ghost_batch_norm(nn.ReLU(), 4)(torch.ones(1)).item() == 1.0


def test_a_layer_in_several_places_stays_one_layer() -> None:
    shared = nn.BatchNorm1d(3)
    made = nn.Sequential(shared, nn.ReLU(), shared, nn.Sequential(shared))
    convert_ghost_batch_norm(made, 2)
    assert isinstance(made[0], GhostBatchNorm1d)
    assert made[0] is made[2]
    assert made[0] is made[3][0]  # type: ignore[index]


def test_what_cannot_be_converted() -> None:
    with pytest.raises(ValueError, match="synchronised batch norm"):
        convert_ghost_batch_norm(nn.Sequential(nn.SyncBatchNorm(3)), 2)
    with pytest.raises(ValueError, match="synchronised batch norm"):
        convert_ghost_batch_norm(nn.Sequential(SyncBatchNorm(3, lambda t: t)), 2)
    with pytest.raises(ValueError, match="the model has ghost batch norm"):
        convert_sync_batch_norm(nn.Sequential(GhostBatchNorm2d(3, 2)), lambda t: t)
    with pytest.raises(ValueError, match="momentum=None"):
        convert_ghost_batch_norm(nn.Sequential(nn.BatchNorm2d(3, momentum=None)), 2)
    for convert in (lambda m: convert_ghost_batch_norm(m, 2), lambda m: convert_sync_batch_norm(m, lambda t: t)):
        with pytest.raises(ValueError, match="Activated, a variant of batch norm that cannot be converted"):
            convert(nn.Sequential(Activated(3)))


def test_to_synchronised() -> None:
    before = model()
    parameters = dict(before.named_parameters())
    state = copy.deepcopy(before.state_dict())
    after = convert_sync_batch_norm(before, lambda t: t)
    assert sum(isinstance(m, SyncBatchNorm) for m in after.modules()) == 3
    assert all(p is parameters[name] for name, p in after.named_parameters())
    torch.testing.assert_close(after.state_dict(), state, rtol=0, atol=0)
    assert isinstance(convert_sync_batch_norm(nn.SyncBatchNorm(3), lambda t: t), SyncBatchNorm)
