"""Activation checkpointing: the same gradients, statistics and masks as without, and what would not be is refused."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from disttrain.nn import GhostBatchNorm2d, defer_statistics, fold_statistics, recompute, recomputed_modules


class Block(nn.Module):
    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.conv, self.norm, self.drop = nn.Conv2d(3, 3, 3, padding=1), norm, nn.Dropout(0.3)

    def forward(self, x: Tensor, *, scale: float = 1.0) -> Tensor:
        return x + scale * self.drop(torch.relu(self.norm(self.conv(x))))


NORMS = {
    "batch": lambda: nn.BatchNorm2d(3),
    "batch, cumulative": lambda: nn.BatchNorm2d(3, momentum=None),
    "instance": lambda: nn.InstanceNorm2d(3, affine=True, track_running_stats=True),
    "ghost": lambda: GhostBatchNorm2d(3, 4),
    "frozen": lambda: nn.BatchNorm2d(3).eval(),
}


def network(norm: str) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(Block(NORMS[norm]()), Block(NORMS[norm]()), nn.Flatten(), nn.Linear(75, 2))


def passed(model: nn.Module, *, deferred: bool) -> dict[str, Tensor]:
    """Gradients and state after two micro-batches."""
    torch.manual_seed(1)
    if deferred:
        defer_statistics(model)
    for _ in range(2):
        model(torch.randn(9, 3, 5, 5)).square().sum().backward()
    if deferred:
        fold_statistics(model, samples=18, ghosts_before=0, ghosts=4)
    grads = {f"grad {name}": p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {**model.state_dict(), **grads, "random": torch.get_rng_state()}


@pytest.mark.parametrize("deferred", [False, True], ids=["", "deferred"])
@pytest.mark.parametrize("norm", NORMS)
def test_gradients_statistics_and_masks_are_the_same_to_the_bit(norm: str, deferred: bool) -> None:
    plain = network(norm)
    found = copy.deepcopy(plain)
    recompute(found, ["0", "[1-9]"])
    expected, ours = passed(plain, deferred=deferred), passed(found, deferred=deferred)
    assert list(ours) == list(expected)
    for name, tensor in expected.items():
        assert torch.equal(ours[name], tensor), name


def test_it_computes_twice_in_training_and_once_in_evaluation() -> None:
    model = network("batch")
    recompute(model, ["0"])
    calls: list[int] = []
    model[0].conv.register_forward_hook(lambda *_: calls.append(1))
    model(torch.randn(2, 3, 5, 5)).sum().backward()
    assert len(calls) == 2
    model.eval()
    with torch.no_grad():
        model(torch.randn(2, 3, 5, 5))
    assert len(calls) == 3


def test_a_copy_is_a_model_of_its_own() -> None:
    model = network("batch")
    recompute(model, ["0"])
    twin = copy.deepcopy(model)
    with torch.no_grad():
        twin[0].conv.weight.add_(1.0)
    twin(torch.randn(2, 3, 5, 5)).sum().backward()
    assert twin[0].conv.weight.grad is not None
    assert model[0].conv.weight.grad is None


def test_the_outermost_modules_are_chosen() -> None:
    model = nn.Sequential(network("batch"), network("batch"))
    assert recomputed_modules(model, ["0.*", "1.1", "1.1.conv"]) == ["0.0", "0.1", "0.2", "0.3", "1.1"]
    assert recomputed_modules(model, []) == []


def test_a_pattern_that_matches_nothing_is_named() -> None:
    with pytest.raises(ValueError, match=r"no module matches 'blocks\.\*'; there are "):
        recomputed_modules(network("batch"), ["0", "blocks.*"])


def test_spectral_norm_is_refused() -> None:
    model = nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(3, 3)))
    with pytest.raises(ValueError, match="0 has spectral norm"):
        recomputed_modules(model, ["0"])


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.get_buffer("calls").add_(1)
        return torch.relu(self.linear(x))


def test_a_buffer_that_would_change_twice_is_named() -> None:
    model = nn.Sequential(Counting())
    recompute(model, ["0"])
    with pytest.raises(RuntimeError, match="0 changes its buffer calls"):
        model(torch.ones(2, 3)).sum().backward()
