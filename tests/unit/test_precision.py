"""The settings of a precision: the loss scale's, the sums of products, and the devices that have it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
import torch

from disttrain.config import load_recipe
from disttrain.errors import InputError
from disttrain.precision import FP16, make_precision, missing, require_device

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    yield
    make_precision(load_recipe(None, []), CPU)


def scaled(*settings: str) -> FP16:
    words = [f"loss_scaling.{setting}" for setting in settings]
    found = make_precision(load_recipe(None, ["precision=fp16", *words]), CPU)
    assert isinstance(found, FP16)
    return found


def test_the_loss_scale_begins_and_moves_as_the_recipe_says() -> None:
    words = ["initial=1024.0", "growth_factor=4.0", "backoff_factor=0.25", "growth_interval=2"]
    precision, weight = scaled(*words), torch.nn.Parameter(torch.ones(1))
    optimizer, scales = torch.optim.SGD([weight], lr=0.1), []
    for gradient in (1.0, 1.0, float("inf"), 1.0):
        weight.grad = torch.full((1,), gradient) * precision.loss_scale
        precision.scale(torch.ones(1))
        precision.unscale_(optimizer)
        precision.step(optimizer)
        scales.append(precision.loss_scale)
    assert scales == [1024.0, 4096.0, 1024.0, 1024.0]


def test_null_is_as_torch_has_it() -> None:
    torchs = torch.amp.GradScaler("cpu").state_dict()
    assert make_precision(load_recipe(None, ["precision=fp16"]), CPU).state_dict() == torchs
    assert scaled("initial=65536.0").state_dict() == torchs


def test_a_resumed_run_has_its_scale_and_the_recipes_settings() -> None:
    before, now = scaled("initial=64.0", "growth_interval=7"), scaled("initial=2.0", "growth_interval=9")
    now.load_state_dict(before.state_dict())
    assert (now.state_dict()["scale"], now.state_dict()["growth_interval"]) == (64.0, 9)


def test_the_same_shrinking_before_giving_up() -> None:
    assert (scaled("initial=2.0").max_overflows, scaled("backoff_factor=0.25").max_overflows) == (40, 20)
    assert 0.8 ** scaled("backoff_factor=0.8").max_overflows <= 0.5**40


@pytest.mark.parametrize("allowed", [False, True])
def test_sums_of_products_stay_wide_unless_allowed(allowed: bool) -> None:
    matmul = torch.backends.cuda.matmul
    make_precision(load_recipe(None, [f"reduced_precision_reductions={str(allowed).lower()}"]), CPU)
    assert matmul.allow_fp16_reduced_precision_reduction is allowed
    assert matmul.allow_bf16_reduced_precision_reduction is allowed


def of_capability(monkeypatch: pytest.MonkeyPatch, major: int) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (major, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Some GPU")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation or major >= 8)
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())


def test_a_gpu_that_lacks_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    of_capability(monkeypatch, 7)
    assert missing("bf16", GPU) == (
        "Some GPU has compute capability 7.5, and bf16 needs 8.0: use precision: fp32 or fp16"
    )
    assert missing("tf32", GPU) == "Some GPU has compute capability 7.5, and tf32 needs 8.0: use precision: fp32"
    assert [missing(name, GPU) for name in ("fp64", "fp32", "fp16")] == ["", "", ""]
    with pytest.raises(InputError, match=r"^precision bf16: Some GPU"):
        require_device("bf16", GPU)


def test_a_gpu_that_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    of_capability(monkeypatch, 8)
    assert [missing(name, GPU) for name in ("bf16", "tf32")] == ["", ""]


def test_the_cpu_has_all_but_tf32() -> None:
    assert [bool(missing(name, CPU)) for name in ("fp64", "fp32", "tf32", "bf16", "fp16")] == [0, 0, 1, 0, 0]
