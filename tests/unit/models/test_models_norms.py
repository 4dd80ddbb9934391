"""Norms, initialisers and feed-forward layers by name, in all models that take them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from disttrain.errors import InputError
from disttrain.models.build import build_model
from disttrain.models.norms import Norm
from disttrain.models.transformer import Transformer
from disttrain.nn import GEGLU, GatedFeedForward, GhostBatchNorm, GhostBatchNorm1d, GhostBatchNorm2d, ReGLU, SwiGLU

IMAGES = {"in_shape": (3, 16, 16), "num_classes": 5}
TEXT = {"vocab_size": 13, "sequence_length": 6}


def build(name: str, **arguments: Any) -> nn.Module:
    torch.manual_seed(0)
    return build_model(name, arguments, IMAGES)


@pytest.mark.parametrize(
    ("name", "over"),
    [("batch", (0, 2, 3)), ("group", None), ("layer", (1, 2, 3)), ("instance", (2, 3))],
)
def test_norms_of_images_against_their_definition(name: str, over: tuple[int, ...] | None) -> None:
    x = torch.randn(4, 12, 5, 5, dtype=torch.float64) * 3 + 2
    layer = Norm(name, groups=8).over_images(12).double()
    if over is None:  # gcd(8, 12) = 4 groups of 3 channels
        view, over = x.view(4, 4, 3, 5, 5), (2, 3, 4)
    else:
        view = x
    centred = view - view.mean(over, keepdim=True)
    expected = centred / (centred.square().mean(over, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(layer(x), expected.view(x.shape), rtol=1e-10, atol=1e-10)


def test_ghost_norms_get_their_settings() -> None:
    kind = Norm("ghost_batch", ghost_size=3, stats_update="sequential")
    for layer, expected in (
        (kind.over_images(4), GhostBatchNorm2d),
        (kind.over_features(4), GhostBatchNorm1d),
    ):
        assert type(layer) is expected
        assert (layer.num_features, layer.ghost_size, layer.stats_update) == (4, 3, "sequential")


def test_no_norm_and_unknown_norms() -> None:
    x = torch.randn(2, 3, 4, 4)
    assert Norm("none").over_images(3)(x) is x
    assert Norm("none").over_features(3)(x) is x
    with pytest.raises(
        InputError, match="norm is 'weight'; it must be batch, ghost_batch, group, layer, instance or none"
    ):
        Norm("weight").over_images(3)
    with pytest.raises(InputError, match="norm is 'group'; it must be batch, ghost_batch, layer or none"):
        Norm("group").over_features(3)


@pytest.mark.parametrize("name", ["mlp", "convnet", "resnet18", "resnet44", "resnet50"])
def test_every_norm_of_a_ghost_model_has_the_ghosts(name: str) -> None:
    ghost = build(name, norm="ghost_batch", ghost_size=4, stats_update="sequential")
    plain = build(name, norm="batch")
    norms = [m for m in ghost.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert norms
    assert all(isinstance(m, GhostBatchNorm) for m in norms)
    assert {(m.ghost_size, m.stats_update) for m in norms} == {(4, "sequential")}  # type: ignore[attr-defined]
    torch.testing.assert_close(ghost.state_dict(), plain.state_dict(), rtol=0, atol=0)
    x = torch.randn(8, 3, 16, 16)
    torch.testing.assert_close(ghost.eval()(x), plain.eval()(x))


@pytest.mark.parametrize("name", ["mlp", "convnet", "resnet44"])
def test_a_ghost_depends_on_its_own_samples_only(name: str) -> None:
    arguments: dict[str, Any] = {} if name != "resnet44" else {"zero_init_last_gamma": False}
    model = build(name, norm="ghost_batch", ghost_size=4, **arguments).double()
    x = torch.randn(8, 3, 16, 16, dtype=torch.float64)
    together = model(x)
    torch.testing.assert_close(together[:4], model(x[:4]), rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(together[4:], model(x[4:]), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", ["mlp", "convnet", "resnet18", "resnet44", "resnet50"])
def test_initialiser_by_name(name: str) -> None:
    model = build(name, init="orthogonal")
    for layer in model.modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            weight = layer.weight.flatten(1)
            gram = weight @ weight.T if weight.shape[0] <= weight.shape[1] else weight.T @ weight
            torch.testing.assert_close(gram, torch.eye(len(gram)), rtol=0, atol=1e-4)
    with pytest.raises((InputError, ValueError), match="initialiser 'glorot': expected one of"):
        build(name, init="glorot")


@pytest.mark.parametrize("zero", [True, False])
def test_zero_init_survives_an_initialiser(zero: bool) -> None:
    model = build("resnet44", init="he", zero_init_last_gamma=zero)
    last = [block.branch[-1].weight for block in model.stages]  # type: ignore[union-attr]
    assert {w.unique().item() for w in last} == {0.0 if zero else 1.0}


@pytest.mark.parametrize(("name", "kind"), [("swiglu", SwiGLU), ("geglu", GEGLU), ("reglu", ReGLU)])
def test_gated_transformers(name: str, kind: type[GatedFeedForward]) -> None:
    torch.manual_seed(0)
    gated = Transformer(13, 6, layers=2, heads=4, width=96, feed_forward=name)
    plain = Transformer(13, 6, layers=2, heads=4, width=96)
    kinds = [type(m) for m in gated.modules() if isinstance(m, GatedFeedForward)]
    assert kinds == [kind] * 2
    counts = [sum(p.numel() for p in m.parameters()) for m in (gated, plain)]
    assert counts[0] == pytest.approx(counts[1], rel=0.01)
    downs = [p.std().item() for n, p in gated.named_parameters() if n.endswith("down.weight")]
    assert downs == pytest.approx([0.02 / 2] * 2, rel=0.05)  # the last of four residual branches, as without a gate


def test_unknown_feed_forward() -> None:
    with pytest.raises(InputError, match="feed_forward is 'silu'; it must be gelu, swiglu, geglu, reglu"):
        Transformer(5, 5, feed_forward="silu")
