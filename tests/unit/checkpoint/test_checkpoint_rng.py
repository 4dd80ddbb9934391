"""Random state: after a restore every generator draws what it would have drawn."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from disttrain.checkpoint import Checkpoint, capture_rng, load_checkpoint, restore_rng, save_checkpoint
from disttrain.errors import CheckpointError


@pytest.fixture(autouse=True)
def _leave_generators_alone() -> Iterator[None]:
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    yield
    random.setstate(python)
    np.random.set_state(numpy)
    torch.set_rng_state(cpu)


def draw() -> list[Any]:
    return [
        *(random.random() for _ in range(3)),
        random.gauss(0, 1),
        *np.random.rand(3),
        np.random.randn(),
        *torch.rand(3).tolist(),
        torch.randn(17).tolist(),
    ]


@pytest.mark.parametrize("gauss", [False, True])
def test_the_same_draws_follow(gauss: bool, tmp_path: Path) -> None:
    for seed in range(3):
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        if gauss:  # leaves a spare normal number behind in both generators
            random.gauss(0, 1)
            np.random.randn()
        draw()
        state = capture_rng("cpu")
        assert capture_rng("cpu") == state
        expected = draw()
        path = save_checkpoint(tmp_path, Checkpoint(seed, {}, {"ranks": [state]}), keep=1)
        draw()
        restore_rng(load_checkpoint(path).state["ranks"][0], torch.device("cpu"))
        assert capture_rng("cpu") == state
        assert draw() == expected
        restore_rng(json.loads(json.dumps(state)), "cpu")
        assert draw() == expected


def _spoil(*path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(state: dict[str, Any]) -> None:
        inner: Any = state
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = value

    return change


SPOILED: dict[str, Callable[[dict[str, Any]], None]] = {
    "no torch": lambda state: state.pop("torch"),
    "cuda on a CPU": _spoil("cuda", value=""),
    "another generator": _spoil("jax", value=""),
    "torch short": _spoil("torch", value="AAAA"),
    "torch empty": _spoil("torch", value=""),
    "torch not base64": _spoil("torch", value="%%%"),
    "torch null": _spoil("torch", value=None),
    "torch all zero": lambda state: state.update(torch="A" * len(state["torch"].rstrip("=")) + "=="),
    "numpy null": _spoil("numpy", value=None),
    "numpy key short": _spoil("numpy", "key", value="AAAA"),
    "numpy position": _spoil("numpy", "position", value=625),
    "numpy position negative": _spoil("numpy", "position", value=-1),
    "numpy position float": _spoil("numpy", "position", value=1.0),
    "numpy has_gauss": _spoil("numpy", "has_gauss", value=2),
    "numpy gauss": _spoil("numpy", "gauss", value=float("nan")),
    "python version": _spoil("python", "version", value=99),
    "python key": _spoil("python", "key", value=[1]),
    "python position": _spoil("python", "position", value=2**40),
    "python gauss": _spoil("python", "gauss", value="0"),
    "python missing": lambda state: state["python"].pop("gauss"),
}


@pytest.mark.parametrize("name", SPOILED)
def test_a_spoiled_state_is_refused_and_restores_nothing(name: str) -> None:
    state = copy.deepcopy(capture_rng("cpu"))
    draw()
    before = capture_rng("cpu")
    SPOILED[name](state)
    with pytest.raises(CheckpointError, match="random state"):
        restore_rng(state, "cpu")
    assert capture_rng("cpu") == before


@pytest.mark.parametrize("state", [None, [], {}, "x"])
def test_no_state_at_all_is_refused(state: Any) -> None:
    with pytest.raises(CheckpointError, match="needs"):
        restore_rng(state, "cpu")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_generator_of_the_device_is_included() -> None:
    device = torch.device("cuda", 0)
    torch.rand(3, device=device)
    state = capture_rng(device)
    expected = torch.rand(5, device=device).tolist()
    restore_rng(json.loads(json.dumps(state)), device)
    assert torch.rand(5, device=device).tolist() == expected
    with pytest.raises(CheckpointError, match="needs"):
        restore_rng(state, "cpu")
    with pytest.raises(CheckpointError, match="needs"):
        restore_rng(capture_rng("cpu"), device)
