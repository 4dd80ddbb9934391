"""What all built-in models promise."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from disttrain.errors import InputError
from disttrain.models.build import build_model

IMAGES = {"in_shape": (3, 16, 16), "num_classes": 5}
TEXT = {"vocab_size": 13, "sequence_length": 6}
CASES = {
    "mlp": ("mlp", {"hidden": [8, 8]}, IMAGES),
    "mlp layer": ("mlp", {"hidden": [8], "norm": "layer"}, IMAGES),
    "convnet": ("convnet", {"widths": [8, 16]}, IMAGES),
    "convnet none": ("convnet", {"widths": [8, 16], "norm": "none"}, IMAGES),
    "resnet18": ("resnet18", {"norm": "group"}, IMAGES),
    "resnet44": ("resnet44", {"norm": "layer"}, IMAGES),
    "resnet50": ("resnet50", {"norm": "group", "zero_init_last_gamma": False}, IMAGES),
    "transformer": ("transformer", {"layers": 2, "heads": 2, "width": 8}, TEXT),
    "transformer swiglu": (
        "transformer",
        {"layers": 2, "heads": 2, "width": 8, "feed_forward": "swiglu", "init": "xavier"},
        TEXT,
    ),
}
Make = Callable[[], tuple[nn.Module, Tensor]]


@pytest.fixture(params=CASES)
def make(request: pytest.FixtureRequest) -> Make:
    name, arguments, hints = CASES[request.param]

    def made() -> tuple[nn.Module, Tensor]:
        torch.manual_seed(3)
        model = build_model(name, arguments, hints).double()
        if hints is TEXT:
            return model, torch.randint(13, (4, 6))
        return model, torch.randn(4, 3, 16, 16, dtype=torch.float64)

    return made


def test_float64_gradients_reach_every_parameter(make: Make) -> None:
    model, inputs = make()
    # The branches of a ResNet begin as zero and would hide what lies before their last scale.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.01
    logits = model(inputs)
    assert logits.dtype == torch.float64
    (logits * torch.randn_like(logits)).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.dtype == torch.float64
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


def test_two_runs_have_the_same_bits(make: Make) -> None:
    runs = []
    for _ in range(2):
        model, inputs = make()
        model(inputs).square().sum().backward()
        runs.append([p.grad for p in model.parameters()])
    for first, second in zip(*runs, strict=True):
        assert torch.equal(first, second)


def test_a_sample_does_not_depend_on_its_batch(make: Make) -> None:
    model, inputs = make()
    together = model(inputs)
    alone = torch.cat([model(inputs[i : i + 1]) for i in range(len(inputs))])
    torch.testing.assert_close(together, alone, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["convnet", "resnet18", "resnet50"])
def test_models_of_images_want_images(name: str) -> None:
    with pytest.raises(InputError, match=r"in_shape is \(64,\); a model of images needs \(channels, height, width\)"):
        build_model(name, {}, {"in_shape": (64,), "num_classes": 5})


@pytest.mark.parametrize("name", ["mlp", "convnet", "resnet18", "resnet50"])
def test_unknown_norm(name: str) -> None:
    with pytest.raises(InputError, match="norm is 'weight'; "):
        build_model(name, {"norm": "weight"}, IMAGES)


@pytest.mark.parametrize("name", ["mlp", "convnet", "resnet18"])
def test_batch_norm(name: str) -> None:
    model = build_model(name, {"norm": "batch"}, IMAGES)
    assert any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules())
    assert model(torch.randn(4, 3, 16, 16)).shape == (4, 5)
