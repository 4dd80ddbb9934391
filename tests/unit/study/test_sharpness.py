"""Sharpness and slices against what they are of: a quadratic, an exact Hessian, and a run's own losses."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import disttrain
from disttrain.errors import InputError
from disttrain.models.transformer import Transformer
from disttrain.study.landscape import plot, random_direction, slice_1d, slice_2d
from disttrain.study.sharpness import keskar_sharpness, largest_eigenvalue
from disttrain.study.surface import Surface, surface


class Quadratic(nn.Module):
    """``w^T A w / 2`` of a matrix with known eigenvalues, in two parameters."""

    def __init__(self, eigenvalues: list[float], dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        n = len(eigenvalues)
        basis = np.linalg.qr(np.random.default_rng(0).normal(size=(n, n)))[0]
        self.matrix = torch.from_numpy(basis @ np.diag(eigenvalues) @ basis.T).to(dtype)
        self.first, self.rest = (
            nn.Parameter(torch.ones(3, dtype=dtype)),
            nn.Parameter(torch.ones(n - 3, 1, dtype=dtype)),
        )

    def loss(self) -> Tensor:
        w = torch.cat([self.first, self.rest.flatten()])
        return w @ self.matrix @ w / 2


def of(model: Quadratic) -> Surface:
    """The mean of two losses: the quadratic, and one that is linear."""
    return Surface(model, [lambda: 2 * model.loss(), lambda: 3 * model.first.sum() + 0 * model.rest.sum()], 2, 1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("method", ["lanczos", "power"])
@pytest.mark.parametrize(
    "eigenvalues",
    [[5.0, 4.0, 1.0, 0.5, *[0.01] * 20], [3.0, -10.0, 2.0, *[0.0] * 20], [-1.0, -2.0, -3.0, -4.0]],
    ids=["positive", "a larger negative one", "all negative"],
)
def test_a_quadratic(eigenvalues: list[float], method: str, dtype: torch.dtype) -> None:
    found = largest_eigenvalue(of(Quadratic(eigenvalues, dtype)), method=method, most=300)  # type: ignore[arg-type]
    assert found.converged
    assert found.value == pytest.approx(max(eigenvalues), rel=1e-4)
    assert abs(found.value - max(eigenvalues)) <= found.residual + 1e-6


def test_what_has_not_converged_says_so() -> None:
    surface_ = of(Quadratic([1.0, 0.999, *[0.5] * 20]))
    found = largest_eigenvalue(surface_, method="power", most=4, tolerance=1e-6)
    assert not found.converged
    assert found.products == 4
    assert found.residual > 1e-6


def test_keskars_box_on_a_quadratic() -> None:
    """From the middle of a separable bowl the highest corner is known."""
    model = Quadratic([1.0, 2.0, 3.0, 4.0])
    model.matrix = torch.diag(torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64))
    bowl = Surface(model, [model.loss], 1, 1)
    corner = 0.5 * (1 + 2 + 3 + 4) * (1 + 2e-2) ** 2  # each weight is 1, its box 0.01 * (1 + 1)
    expected = 100 * (corner - 5.0) / (1 + 5.0)
    assert keskar_sharpness(bowl, epsilon=1e-2, steps=5) == pytest.approx(expected, rel=1e-9)
    assert bowl.loss() == 5.0  # and the weights are as before


def test_attention_has_a_second_derivative() -> None:
    torch.manual_seed(0)
    model = Transformer(7, 5, layers=1, heads=2, width=8)
    tokens = torch.randint(0, 7, (4, 5))
    on = Surface(model, [lambda: model(tokens).square().sum()], 4, 4)
    one, other = (torch.randn(len(on.zeros()), dtype=torch.float64) for _ in range(2))
    assert float(other @ on.curvature(one)) == pytest.approx(float(one @ on.curvature(other)), rel=1e-4)


RUN: dict[str, Any] = {
    "task": {"name": "digits"},
    "batch": {"global": 100},
    "updates": 12,
    "epochs": None,
    "precision": "fp64",
    "model": {"name": "mlp", "hidden": [4], "norm": "batch"},
    "optimizer": {"name": "sgd", "lr": 0.1},
    "evaluate": {"epochs": 1},
    "log": {"tensorboard": False},
    "checkpoint": {"every_steps": 6, "keep": 2},
}


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network with batch norm, 12 updates on digits."""
    place = tmp_path_factory.mktemp("sharpness") / "run"
    disttrain.train(RUN, run_dir=place)
    return place


def test_a_run_against_its_exact_hessian(run_dir: Path) -> None:
    on = surface(run_dir, samples=150)
    model = disttrain.load_model(run_dir)
    names = [name for name, _ in model.named_parameters()]
    shapes = [p.shape for p in model.parameters()]
    flat = torch.cat([p.detach().flatten() for p in model.parameters()])
    # The data anew: the samples are a fixed choice, found by their loss.
    inputs, labels = (torch.cat(parts) for parts in zip(*(part.args[-1] for part in on._sums), strict=True))

    def loss(vector: Tensor) -> Tensor:
        pieces = [v.view(s) for v, s in zip(vector.split([s.numel() for s in shapes]), shapes, strict=True)]
        logits = torch.func.functional_call(model, dict(zip(names, pieces, strict=True)), (inputs,))
        return nn.functional.cross_entropy(logits, labels)

    assert len(inputs) == on.samples == 150
    assert on.loss() == pytest.approx(float(loss(flat)), rel=1e-12)
    torch.testing.assert_close(on.gradient(), torch.func.grad(loss)(flat), rtol=1e-9, atol=1e-12)
    exact = float(torch.linalg.eigvalsh(torch.func.hessian(loss)(flat))[-1])
    for method in ("lanczos", "power"):
        found = largest_eigenvalue(on, method=method, most=400)  # type: ignore[arg-type]
        assert found.converged, method
        assert found.value == pytest.approx(exact, rel=1e-4)
    assert keskar_sharpness(on) > 0


def test_slices_of_a_run(run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, earlier = surface(run_dir, samples=64), surface(run_dir, samples=64, checkpoint=6)
    before = {name: tensor.clone() for name, tensor in here.tensors.items()}
    line = slice_1d(earlier, to=run_dir, points=5, samples=64)
    assert line.at == [-0.5, 0.0, 0.5, 1.0, 1.5]
    assert line.losses[1] == pytest.approx(earlier.loss(), rel=1e-12)
    assert line.losses[3] == pytest.approx(here.loss(), rel=1e-9)  # running statistics too
    alone = slice_1d(here, points=3, seed=2)
    plane = slice_2d(here, points=3, span=(-0.5, 0.5), seed=1)
    assert alone.losses[1] == plane.losses[1][1] == pytest.approx(here.loss(), rel=1e-12)
    assert alone.losses[0] > alone.losses[1]
    with here.moved({name: 0.5 * step for name, step in random_direction(here, 3).items()}):
        assert here.loss() == plane.losses[2][1]  # the second direction, alone
    for name, step in random_direction(here, 3).items():
        torch.testing.assert_close(step.flatten(1).norm(dim=1), here.tensors[name].flatten(1).norm(dim=1))
    assert all(torch.equal(tensor, before[name]) for name, tensor in here.tensors.items())
    for found in (line, plane):
        pictures = [plot(found, tmp_path / f"{i}.svg").read_bytes() for i in range(2)]
        assert pictures[0] == pictures[1]
        assert b"<svg" in pictures[0]
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(InputError, match=r"pip install \"disttrain\[report\]\""):
        plot(line, tmp_path / "no.svg")


def test_bad_input(run_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="samples is 0; expected at least 1"):
        surface(run_dir, samples=0)
    with pytest.raises(InputError, match="method is 'newton', most 3"):
        largest_eigenvalue(run_dir, method="newton", most=3)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="two positions in rising order"):
        slice_1d(run_dir, span=(1.0, 0.0))
    other = tmp_path / "other"
    disttrain.train({**RUN, "updates": 1, "evaluate": None, "model": {"name": "mlp", "hidden": [5]}}, run_dir=other)
    with pytest.raises(InputError, match=r"no line between the weights of two models: body\.\d"):
        slice_1d(run_dir, to=other, samples=10)
    model = nn.LayerNorm(3)
    with pytest.raises(InputError, match="vectors alone have no filter"):
        slice_1d(Surface(model, [lambda: model.weight.sum()], 1, 1))
