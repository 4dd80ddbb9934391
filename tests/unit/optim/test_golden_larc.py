"""LARC against float64, in front of several of torch's optimizers, and at the edges."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from disttrain.optim import LARC
from tests.unit.optim import reference
from tests.unit.optim.golden import LOW, agree, drive, fixed, low_starts, moved, sporadic, stored
from tests.unit.optim.test_golden import RATES, gradient, starts

Inner = Callable[..., torch.optim.Optimizer]
DECAY = 0.01
INNER: list[tuple[Inner, dict[str, Any]]] = [
    (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
    (torch.optim.Adam, {"eps": 1e-6}),
    (torch.optim.RMSprop, {"momentum": 0.5}),
    (torch.optim.Adagrad, {}),
]


def adapted(w: np.ndarray, g: np.ndarray, lr: float, clip: bool) -> np.ndarray:
    """``r * (g + decay * w)``, by hand."""
    size, slope = reference.norm(w), reference.norm(g)
    r = 1.0
    if size > 0 and slope > 0:
        r = 0.02 * size / (slope + DECAY * size + 1e-8)
        r = min(r / lr, 1.0) if clip else r
    return r * (g + DECAY * w)


@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize(("inner", "settings"), INNER, ids=lambda value: getattr(value, "__name__", ""))
def test_in_front_of(inner: Inner, settings: dict[str, Any], clip: bool) -> None:
    """The inner optimizer, without decay, given by hand the gradient that LARC is to give it, in float64."""

    def by_hand(step: int, tensor: int, weights: np.ndarray) -> np.ndarray:
        return adapted(weights, gradient(step, tensor, weights), RATES[step], clip)

    expected = drive(lambda p: inner(p, lr=0.1, weight_decay=0.0, **settings), starts(), by_hand)
    found = drive(lambda p: LARC(inner(p, lr=0.1, weight_decay=DECAY, **settings), clip=clip), starts())
    agree(found, [w.numpy() for w in expected], 1e-11)


def test_absent_gradients() -> None:
    expected = reference.larc_sgd(starts(), sporadic, RATES, weight_decay=DECAY)
    found = drive(lambda p: LARC(torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=DECAY)), starts(), sporadic)
    agree(found, expected, 1e-11)


def test_groups_without_a_ratio_are_the_inner_optimizers_own() -> None:
    def make(p: Any, wrap: bool) -> torch.optim.Optimizer:
        groups = [{"params": list(p), "adapt": False, "weight_decay": DECAY}]
        sgd = torch.optim.SGD(groups, 0.1, momentum=0.9)
        return LARC(sgd) if wrap else sgd

    expected = drive(lambda p: make(p, wrap=False), starts())
    agree(drive(lambda p: make(p, wrap=True), starts()), [w.numpy() for w in expected], 0.0)


@pytest.mark.parametrize("which", ["weights", "gradient"])
def test_without_a_ratio_the_decay_stays(which: str) -> None:
    """apex drops it then. ``w -= lr * (g + decay * w)``, by hand."""
    w = np.zeros(3) if which == "weights" else np.full(3, 2.0)
    g = np.zeros(3) if which == "gradient" else np.full(3, 0.5)
    found = drive(lambda p: LARC(torch.optim.SGD(p, 0.1, weight_decay=0.3)), [w], lambda *_: g, [0.1])
    agree(found, [w - 0.1 * (g + 0.3 * w)], 1e-14)
    moved(found, [w])


@pytest.mark.parametrize("dtype", LOW, ids=str)
def test_narrow_weights(dtype: torch.dtype) -> None:
    """Without momentum: torch's SGD keeps its buffer, and takes the gradient, in the weights' dtype."""
    expected = reference.larc_sgd(low_starts(), fixed, RATES, momentum=0.0, trust_coefficient=0.2, store=stored(dtype))
    found = drive(lambda p: LARC(torch.optim.SGD(p, 0.1), trust_coefficient=0.2), low_starts(), fixed, dtype=dtype)
    agree(found, expected, 8 * LOW[dtype])
    moved(found[:6], low_starts()[:6])  # the next one's gradient is tiny, and the clipped ratio does not make it large


def test_maximize_decays_all_the_same() -> None:
    """torch negates the gradient and then adds the decay: ``w -= lr * (decay * w - g)``, by hand."""
    w, g = np.full(3, 2.0), np.zeros(3)
    found = drive(lambda p: LARC(torch.optim.SGD(p, 0.1, weight_decay=0.3, maximize=True)), [w], lambda *_: g, [0.1])
    agree(found, [w - 0.1 * 0.3 * w], 1e-14)


def test_a_checkpoint_loaded_into_the_optimizer_inside() -> None:
    def make(p: Any) -> LARC:
        return LARC(torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=DECAY))

    params = [torch.nn.Parameter(torch.ones(3))]
    optimizer, again = make(params), make(params)
    again.optimizer.load_state_dict(optimizer.optimizer.state_dict())
    assert again.param_groups is again.optimizer.param_groups
    assert again.state is again.optimizer.state


def test_complex_and_sparse_are_refused() -> None:
    pairs = torch.nn.Parameter(torch.ones(2, dtype=torch.complex64))
    pairs.grad = torch.ones_like(pairs)
    with pytest.raises(RuntimeError, match="LARC does not support complex"):
        LARC(torch.optim.SGD([pairs], 0.1)).step()
    embedding = torch.nn.Embedding(4, 2, sparse=True)
    embedding(torch.tensor([1])).sum().backward()
    with pytest.raises(RuntimeError, match="LARC does not support sparse"):
        LARC(torch.optim.SGD(embedding.parameters(), 0.1)).step()
