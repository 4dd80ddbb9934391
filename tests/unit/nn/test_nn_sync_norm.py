"""Synchronised batch norm: ranks as threads, against torch's batch norm on the whole batch."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from disttrain.nn import SyncBatchNorm


class Ranks:
    """Threads that add tensors up."""

    def __init__(self, size: int) -> None:
        self.size, self.calls = size, 0
        self.slots: list[Tensor | None] = [None] * size
        self.barrier = threading.Barrier(size, timeout=20)

    def all_reduce(self, rank: int) -> Callable[[Tensor], object]:
        def reduce(tensor: Tensor) -> Tensor:
            self.slots[rank] = tensor.clone()
            self.barrier.wait()
            total = torch.stack([slot for slot in self.slots if slot is not None]).sum(0)
            self.calls += rank == 0
            self.barrier.wait()
            return tensor.copy_(total)

        return reduce

    def run(self, work: Callable[[int], Any]) -> list[Any]:
        with ThreadPoolExecutor(self.size) as pool:
            return list(pool.map(work, range(self.size)))


@pytest.mark.parametrize("shape", [(5,), (5, 3), (5, 2, 3), (5, 2, 1, 3)])
@pytest.mark.parametrize("sizes", [[6], [4, 4], [5, 1, 2], [7, 0]])
def test_like_batch_norm_of_the_whole_batch(sizes: list[int], shape: tuple[int, ...]) -> None:
    ranks = Ranks(len(sizes))
    torch.manual_seed(0)
    kind = {1: nn.BatchNorm1d, 2: nn.BatchNorm1d, 3: nn.BatchNorm2d, 4: nn.BatchNorm3d}[len(shape)]
    whole = kind(5).double()
    nn.init.normal_(whole.weight)
    nn.init.normal_(whole.bias)
    layers = [SyncBatchNorm(5, ranks.all_reduce(rank), dtype=torch.float64) for rank in range(len(sizes))]
    for layer in layers:
        layer.load_state_dict(whole.state_dict())
    x = torch.randn(sum(sizes), *shape, dtype=torch.float64) * 2 + 100
    upstream = torch.randn_like(x)
    everything = x.clone().requires_grad_()
    expected = whole(everything)
    (expected * upstream).sum().backward()

    inputs = [part.clone().requires_grad_() for part in x.split(sizes)]
    results = ranks.run(lambda rank: layers[rank](inputs[rank]))
    assert ranks.calls == 2
    torch.testing.assert_close(torch.cat(results), expected, rtol=1e-10, atol=1e-10)
    # On CPU a backward runs in the thread that asks for it, so the ranks' meet.
    ranks.run(lambda rank: (results[rank] * upstream.split(sizes)[rank]).sum().backward())
    assert ranks.calls == 3
    torch.testing.assert_close(torch.cat([i.grad for i in inputs]), everything.grad, rtol=1e-10, atol=1e-10)
    for name in ("weight", "bias"):
        total = torch.stack([getattr(layer, name).grad for layer in layers]).sum(0)
        torch.testing.assert_close(total, getattr(whole, name).grad, rtol=1e-10, atol=1e-10)
    for layer in layers:
        torch.testing.assert_close(layer.state_dict(), whole.state_dict(), rtol=1e-10, atol=1e-10)
        layer.eval()
        torch.testing.assert_close(layer(x), whole.eval()(x))


def alone(tensor: Tensor) -> Tensor:
    return tensor


@pytest.mark.parametrize("options", [{}, {"affine": False}, {"track_running_stats": False}])
def test_one_rank_is_batch_norm(options: dict[str, bool]) -> None:
    ours, theirs = SyncBatchNorm(3, alone, **options), nn.BatchNorm2d(3, **options)  # type: ignore[arg-type]
    x = torch.randn(4, 3, 5, 5) * 3 + 7
    torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_inputs_as_torch_treats_them(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    ours, theirs = SyncBatchNorm(3, alone), nn.BatchNorm2d(3)
    nn.init.constant_(ours.weight, 1.003)
    nn.init.constant_(theirs.weight, 1.003)
    upstream = (torch.randn(8, 3, 16, 16) * 200).to(dtype)  # its sums are beyond float16
    grads = []
    for layer in (ours, theirs):
        x = torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(1)).to(dtype).requires_grad_()
        result = layer(x)
        assert result.dtype == dtype
        result.backward(upstream + 60)
        grads.append((layer.weight.grad, layer.bias.grad, x.grad))
    for mine, torchs in zip(*grads, strict=True):
        assert mine.isfinite().all()
        assert mine.dtype == torchs.dtype
        torch.testing.assert_close(mine, torchs, rtol=1e-3 if mine.dtype == torch.float32 else 2e-2, atol=0.5)


def test_one_value_in_all_is_refused() -> None:
    with pytest.raises(ValueError, match=r"more than one value per channel.*input \(1, 3\)"):
        SyncBatchNorm(3, alone)(torch.randn(1, 3))
    ranks = Ranks(2)

    def work(rank: int) -> Tensor:
        result: Tensor = SyncBatchNorm(3, ranks.all_reduce(rank))(torch.full((1, 3), float(rank)))
        return result

    assert torch.cat(ranks.run(work)).sign().tolist() == [[-1.0] * 3, [1.0] * 3]


def test_what_else_is_refused() -> None:
    with pytest.raises(ValueError, match="momentum=None"):
        SyncBatchNorm(3, alone, momentum=None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least 2 dimensions"):
        SyncBatchNorm(3, alone)(torch.zeros(3))


def test_no_second_derivative_rather_than_a_wrong_one() -> None:
    x = torch.randn(4, 3, requires_grad=True)
    (grad,) = torch.autograd.grad(SyncBatchNorm(3, alone)(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


def test_a_copy_talks_to_the_same_ranks() -> None:
    class Engine:
        def all_reduce(self, tensor: Tensor) -> Tensor:
            return tensor

        def __deepcopy__(self, memo: object) -> Engine:
            raise AssertionError("process groups cannot be copied")

    model = nn.Sequential(SyncBatchNorm(3, Engine().all_reduce))
    twin = copy.deepcopy(model)
    assert twin[0].weight is not model[0].weight
    assert twin[0].all_reduce is model[0].all_reduce
    x = torch.randn(4, 3)
    assert torch.equal(twin(x), model(x))
