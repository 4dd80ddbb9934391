"""What is saved is what is loaded, to the bit; and equal content gives equal bytes."""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import torch._dynamo  # an optimizer imports it, and it sets TORCHINDUCTOR_CACHE_DIR: not to happen within a test
from checkpoint_cases import make_checkpoint, reseal, same, same_checkpoint
from torch import Tensor, nn

from disttrain.checkpoint import Checkpoint, load_checkpoint, load_latest, save_checkpoint
from disttrain.errors import CheckpointError

OPTIMIZERS: dict[str, Callable[[Iterator[nn.Parameter]], torch.optim.Optimizer]] = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.1),
    "sgd-momentum": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9, nesterov=True),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=1e-3, betas=(0.8, 0.99)),
    "adamw-amsgrad": lambda parameters: torch.optim.AdamW(parameters, lr=1e-3, amsgrad=True),
    "adamw-tensor-lr": lambda parameters: torch.optim.AdamW(parameters, lr=torch.tensor(1e-3)),
    "lbfgs": lambda parameters: torch.optim.LBFGS(parameters, lr=0.1, max_iter=3),
}


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        x = torch.randn(8, 5, generator=generator)

        def closure(x: Tensor = x) -> Tensor:
            optimizer.zero_grad()
            loss: Tensor = (model(x) - x.sum(1, keepdim=True)).square().mean()
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        optimizer.step(closure)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_goes_on_to_identical_bits(name: str, tmp_path: Path) -> None:
    def fresh() -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(3)
        model = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 1))
        return model, OPTIMIZERS[name](model.parameters())

    model, optimizer = fresh()
    train(model, optimizer, 4, seed=1)
    path = save_checkpoint(tmp_path, Checkpoint(4, model.state_dict(), {"optimizer": optimizer.state_dict()}), keep=1)
    loaded = load_checkpoint(path)
    assert same(loaded.model, dict(model.state_dict()))
    assert same(loaded.state, {"optimizer": optimizer.state_dict()})

    resumed_model, resumed_optimizer = fresh()
    resumed_model.load_state_dict(loaded.model)
    resumed_optimizer.load_state_dict(loaded.state["optimizer"])
    train(model, optimizer, 4, seed=2)
    train(resumed_model, resumed_optimizer, 4, seed=2)
    assert same(dict(resumed_model.state_dict()), dict(model.state_dict()))
    assert same(resumed_optimizer.state_dict(), optimizer.state_dict())


DTYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.complex64,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint64,
    torch.uint32,
    torch.uint16,
    torch.uint8,
    torch.bool,
]


def round_trip(tmp_path: Path, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    checkpoint = Checkpoint(0, tensors, {"t": tensors, "in": [{5: (tensors,)}]})
    loaded = load_checkpoint(save_checkpoint(tmp_path, checkpoint, keep=1))
    assert same(loaded.state, {"t": dict(loaded.model), "in": [{5: (dict(loaded.model),)}]})
    return dict(loaded.model)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_and_shape(dtype: torch.dtype, tmp_path: Path) -> None:
    values = torch.tensor([0, 1, 1, 0, 1, 1])
    tensors = {
        "matrix": values.to(dtype).reshape(2, 3),
        "scalar": values[1].to(dtype),
        "empty": torch.empty(0, 3, dtype=dtype),
        "none": torch.empty(0, dtype=dtype),
    }
    loaded = round_trip(tmp_path, tensors)
    assert same(loaded, tensors)


def test_all_dtypes_together_stay_aligned_and_the_library_reads_them(tmp_path: Path) -> None:
    tensors = {f"{i}.{dtype}": torch.tensor([1, 0, 1]).to(dtype) for i, dtype in enumerate(DTYPES)}
    path = save_checkpoint(tmp_path, Checkpoint(0, tensors, {}), keep=1)
    assert same(safetensors.torch.load_file(path / "model.safetensors"), tensors)


def test_files_of_the_library_load(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, make_checkpoint(7), keep=1)
    tensors = {
        "a": torch.arange(6).reshape(2, 3),
        "b": torch.randn(3, dtype=torch.float64),
        "c": torch.empty(0),
    }
    safetensors.torch.save_file(tensors, path / "model.safetensors")
    reseal(path)
    assert same(load_checkpoint(path).model, tensors)


def test_special_float_bits_survive(tmp_path: Path) -> None:
    bits = torch.tensor([0x7FC00001, 0x7F800001, -0x00400000, -0x80000000, 1, 0x7F800000], dtype=torch.int32)
    loaded = round_trip(tmp_path, {"t": bits.view(torch.float32)})
    assert loaded["t"].view(torch.int32).tolist() == bits.tolist()


def test_views_and_shared_memory(tmp_path: Path) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    tensors = {
        "base": base,
        "tied": base,
        "transposed": base.t(),
        "slice": base[1:, ::2],
        "expanded": torch.tensor(2.0).expand(3),
        "parameter": nn.Parameter(base[0]),
        "conjugate": torch.tensor([1 + 2j]).conj(),
        "channels_last": torch.arange(16.0).reshape(1, 2, 2, 4).to(memory_format=torch.channels_last),
    }
    loaded = round_trip(tmp_path, tensors)
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(loaded[name], tensor.detach()), name
    loaded["base"].zero_()
    assert torch.equal(loaded["tied"], base)
    assert base[2, 3] == 11


def test_tensors_come_to_the_device_asked_for(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, make_checkpoint(1), keep=1)
    loaded = load_checkpoint(path, device="meta")
    assert loaded.model["w"].is_meta
    assert loaded.state["optimizer"]["state"][0]["m"].is_meta


def test_plain_values_keep_their_types(tmp_path: Path) -> None:
    state: dict[str, Any] = {
        "ints": [0, -1, 2**70, True, False],
        "floats": [0.0, -0.0, 0.1, 5e-324, 1.7976931348623157e308, math.inf, -math.inf, math.nan, 1.0],
        "nested": ((1, [2, (3,)]), [], (), {}, {"": None}),
        "keys": {1: "int", "1": "str", "$tensor": "not one", -5: (), "é\ud800\u2028": "\x00"},
    }
    loaded = load_checkpoint(save_checkpoint(tmp_path, Checkpoint(0, {}, {**state, "ranks": [state, {}]}), keep=1))
    assert same(loaded.state, {**state, "ranks": [state, {}]})


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    one = make_checkpoint(5)
    other = Checkpoint(
        5,
        dict(reversed(list(one.model.items()))),
        dict(reversed(one.state.items())),
    )
    contents = []
    for name, checkpoint in (("a", one), ("b", other), ("c", one)):
        (tmp_path / name).mkdir()
        path = save_checkpoint(tmp_path / name, checkpoint, keep=1)
        contents.append({file.name: file.read_bytes() for file in path.iterdir()})
    assert contents[0] == contents[1] == contents[2]
    assert sorted(contents[0]) == [
        "MANIFEST.json",
        "model.safetensors",
        "state.json",
        "state.safetensors",
    ]


def test_modes_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        path = save_checkpoint(tmp_path, make_checkpoint(1), keep=1)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o750
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o750
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.iterdir()} == {0o640}


def test_a_checkpoint_can_be_copied_elsewhere(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, make_checkpoint(7), keep=1)
    assert same_checkpoint(load_checkpoint(path.rename(tmp_path / "best")), make_checkpoint(7))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"step": -1}, "number of updates"),
        ({"step": True}, "number of updates"),
        ({"step": 2**63}, "number of updates"),
        ({"model": {"__metadata__": torch.zeros(1)}}, "__metadata__"),
        ({"model": {3: torch.zeros(1)}}, "under the name 3"),
        ({"model": {"w": torch.zeros(1, dtype=torch.complex128)}}, "w is a torch.complex128"),
        ({"model": {"w": torch.zeros(2, 2).to_sparse()}}, "w is a torch.float32 tensor .torch.sparse_coo"),
        ({"model": {"w": torch.zeros(2, device="meta")}}, "on meta"),
        ({"state": {"optimizer": {"state": {0: {"f": print}}}}}, "optimizer.state.0.f: a builtins.builtin"),
        ({"state": {"a": {(1, 2): 3}}}, "a: the key"),
        ({"state": {True: 1}}, "key True"),
        ({"state": {"a": [torch.zeros(2).to_sparse()]}}, "a.0 is a torch.float32 tensor .torch.sparse_coo"),
        ({"state": {"a": {1, 2}}}, "a: a builtins.set"),
        ({"state": {"a": b"bytes"}}, "builtins.bytes"),
        ({"state": {"a": 10**5000}}, "JSON"),
        ({"state": {"ranks": [{"a": object()}]}}, "ranks.0.a: a builtins.object"),
    ],
)
def test_what_cannot_be_stored_is_named_and_nothing_is_written(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    content: dict[str, Any] = {"step": 1, "model": {}, "state": {}} | change
    with pytest.raises(CheckpointError, match=message):
        save_checkpoint(tmp_path, Checkpoint(**content), keep=1)
    assert list(tmp_path.iterdir()) == []


def test_endless_nesting_is_refused(tmp_path: Path) -> None:
    loop: dict[str, Any] = {}
    loop["again"] = loop
    with pytest.raises(CheckpointError, match="deep"):
        save_checkpoint(tmp_path, Checkpoint(1, {}, loop), keep=1)
    deep: list[Any] = []
    for _ in range(95):
        deep = [{1: deep}] if len(str(deep)) % 2 else [deep]
    save_checkpoint(tmp_path, Checkpoint(1, {}, {"deep": deep[0]}), keep=1)
    assert same(load_latest(tmp_path).checkpoint.state, {"deep": deep[0]})
