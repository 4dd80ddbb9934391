"""Sums of squares, against float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from disttrain.grads import SquareNorm, global_norm, square_norm


def exact(tensors: list[Tensor]) -> float:
    return sum(float(chunk.detach().double().square().sum()) for t in tensors for chunk in t.reshape(-1).split(2**20))


def test_23_million_numbers_are_added_to_a_millionth() -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(1_000_000, generator=generator).mul_(torch.rand(1_000_000, generator=generator)).repeat(23)
    shapes = [x[:20_000_000].view(4000, 5000), x[20_000_000:22_999_000], *x[22_999_000:].split(10)]
    assert float(square_norm(shapes)) == pytest.approx(exact([x]), rel=1e-6)
    params = [nn.Parameter(torch.empty_like(shape)) for shape in shapes]
    for param, shape in zip(params, shapes, strict=True):
        param.grad = shape
    assert float(global_norm(params)) ** 2 == pytest.approx(exact([x]), rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_any_dtype_shape_and_layout(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(40, 6, 9, 11, generator=generator).to(dtype)
    odd = [
        x,
        x.to(memory_format=torch.channels_last),
        x.transpose(0, 3),
        x[::2, 1:, :, 3],
        x[0, 0],
        torch.tensor(3.0).to(dtype),
        torch.empty(0, 5, dtype=dtype),
        torch.full((20_000,), 300.0, dtype=dtype),  # their squares are no numbers in float16
        torch.randn(8192, generator=generator, requires_grad=True).to(dtype),
    ]
    found = square_norm(odd)
    assert (found.dtype, found.shape, found.requires_grad) == (torch.float64, (), False)
    assert float(found) == pytest.approx(exact(odd), rel=1e-6 if dtype != torch.float64 else 1e-14)


def test_a_sum_begins_anew_and_nothing_is_zero() -> None:
    found = SquareNorm()
    assert float(found.total()) == 0.0
    for _ in range(3000):
        found.add(torch.full((100,), 2.0))
    assert float(found.total()) == pytest.approx(3000 * 400.0, rel=1e-6)
    assert float(found.total()) == 0.0
    assert torch.isinf(square_norm([torch.tensor([float("inf"), 1.0])]))
