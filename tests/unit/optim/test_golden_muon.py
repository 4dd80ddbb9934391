"""Muon against its papers in float64 and against torch's own, and which weights it takes for matrices."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from disttrain.models.transformer import Transformer
from disttrain.optim import Muon, hidden_matrices
from disttrain.optim.muon import orthogonalised
from tests.unit.optim import reference
from tests.unit.optim.golden import LOW, STOP_AND_GO, agree, drive, fixed, low_starts, moved, scaled, sporadic, stored
from tests.unit.optim.test_golden import RATES, gradient, starts

VARIANTS: list[dict[str, Any]] = [
    {},
    {"nesterov": False, "weight_decay": 0.0, "ns_steps": 3},
    {"momentum": 0.5, "betas": (0.8, 0.99), "eps": 1e-3},
    {"orthogonal": False, "weight_decay": 0.01},
]


@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_the_papers(variant: dict[str, Any], foreach: bool) -> None:
    """Twenty steps; then with gradients that are absent at times and rates of zero; then with a checkpoint between."""
    for of, rates, reload_after in ((gradient, RATES, None), (sporadic, STOP_AND_GO, None), (gradient, RATES, 9)):
        expected = reference.muon(starts(), of, rates, **variant)
        found = drive(lambda p: Muon(p, foreach=foreach, **variant), starts(), of, rates, reload_after=reload_after)
        agree(found, expected, 1e-9)
        moved(found, starts())


@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, *LOW], ids=str)
def test_narrow_weights_and_wide_state(dtype: torch.dtype, foreach: bool) -> None:
    rates = [0.1 * lr for lr in RATES]
    expected = reference.muon(low_starts(), fixed, rates, store=stored(dtype))
    whole, halves = (
        drive(lambda p: Muon(p, foreach=foreach), low_starts(), fixed, rates, dtype, reload_after=after)
        for after in (None, 9)
    )
    agree(whole, expected, 4 * LOW.get(dtype, 1e-5))
    moved(whole, low_starts())
    assert all(torch.equal(a, b) for a, b in zip(whole, halves, strict=True))


@pytest.mark.parametrize("factor", [1e-3, 1e12, 1e18])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_gradients(dtype: torch.dtype, factor: float) -> None:
    """AdamW's squares end at the root of float32's range; the matrices' do not, as they are in float64."""
    some = [np.random.default_rng(1).normal(size=shape) for shape in ((6, 5), (3,), ())]
    expected = reference.muon(some, scaled(factor), RATES)
    agree(drive(Muon, some, scaled(factor), dtype=dtype), expected, 1e-4 if dtype == torch.float32 else 1e-9)
    if dtype == torch.float32:
        found = drive(Muon, some[:1], scaled(1e30), dtype=dtype)
        agree(found, reference.muon(some[:1], scaled(1e30), RATES), 1e-4)


@pytest.mark.parametrize("nesterov", [False, True])
def test_torchs_muon_and_adamw(nesterov: bool) -> None:
    """torch iterates in bfloat16; so do we if asked. A matrix without a gradient and one of zeros are among them."""
    generator = torch.Generator().manual_seed(3)
    start = [torch.randn(shape, generator=generator) for shape in ((16, 32), (32, 16), (12, 12), (12, 12))]
    vectors = [torch.randn(7, generator=generator)]
    ours, theirs = ([nn.Parameter(w.clone()) for w in [*start, *vectors]] for _ in range(2))
    mine = Muon(ours, 0.02, nesterov=nesterov, newton_schulz="bf16", weight_decay=0.1)
    others = [
        torch.optim.Muon(theirs[:-1], 0.02, 0.1, nesterov=nesterov, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(theirs[-1:], 0.02, (0.9, 0.95), weight_decay=0.1),
    ]
    for step in range(10):
        for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            a.grad = torch.zeros_like(a) if i == 3 else torch.randn(a.shape, generator=generator)
            b.grad = a.grad.clone()
        if step == 4:
            ours[2].grad = theirs[2].grad = None
        for optimizer in (mine, *others):
            optimizer.step()
    for a, b in zip(ours[:-1], theirs[:-1], strict=True):
        # Each update is rounded to bfloat16 somewhere else: 2^-8 of it, 0.02 * 0.2 * sqrt(32) / sqrt(16) an element.
        torch.testing.assert_close(a, b, rtol=0, atol=3e-3)
    torch.testing.assert_close(ours[-1], theirs[-1], rtol=1e-6, atol=1e-7)
    assert float((ours[0] - start[0]).detach().norm()) > 0.2


def test_orthogonal_and_of_adamws_size() -> None:
    """Singular values end near 1 and the mean square of an update is about 0.2^2, whatever the shape."""
    generator = torch.Generator().manual_seed(0)
    wide, tall = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((32, 64), (64, 4, 2, 2)))
    for found in orthogonalised([wide, tall], 5, "full"):
        values = torch.linalg.svdvals(found.flatten(1))
        assert 0.6 < float(values.min()) <= float(values.max()) < 1.3
        assert float(found.square().mean().sqrt() * max(found.flatten(1).shape) ** 0.5) == pytest.approx(1.0, abs=0.2)


def names_of(model: nn.Module) -> set[str]:
    hidden = hidden_matrices(model)
    return {name for name, parameter in model.named_parameters() if parameter in hidden}


def test_which_weights_are_hidden_matrices() -> None:
    """Neither embeddings, positions nor the head, wherever the model has them; the kernels of a depthwise convolution are."""
    inner = {f"layers.{i}.{name}.weight" for i in range(2) for name in ("qkv", "out", "up", "down")}
    assert names_of(Transformer(9, 4, layers=2, heads=1, width=4)) == inner
    tied = nn.ModuleDict({"table": nn.Embedding(9, 4), "middle": nn.Linear(4, 4), "head": nn.Linear(4, 9, bias=False)})
    tied["head"].weight = tied["table"].weight
    assert names_of(nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3, groups=4), nn.Linear(4, 1))) == {
        "0.weight",
        "1.weight",
    }
    block = nn.TransformerEncoderLayer
    encoder = nn.ModuleDict(
        {"stem": nn.Conv2d(3, 4, 2), "h": nn.ModuleList([block(4, 2, 8), block(4, 2, 8)]), "head": nn.Linear(4, 3)}
    )
    encoder.register_parameter("token", nn.Parameter(torch.zeros(2, 4)))
    within = ("self_attn.in_proj_weight", "self_attn.out_proj.weight", "linear1.weight", "linear2.weight")
    assert names_of(encoder) == {"stem.weight", *(f"h.{i}.{name}" for i in range(2) for name in within)}
    assert names_of(tied) == {"middle.weight"}  # the head is the embedding
