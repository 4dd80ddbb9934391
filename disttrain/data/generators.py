"""The random generators that samples are made with: torch's on the CPU, ``random`` and ``numpy.random``."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def seed_generators(number: int) -> None:
    """Seed them with 64 bits."""
    torch.default_generator.manual_seed(number)
    random.seed(number)
    np.random.seed(number & 0xFFFFFFFF)


@contextmanager
def random_state_kept() -> Iterator[None]:
    """Put them back afterwards."""
    states = torch.default_generator.get_state(), random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        torch.default_generator.set_state(states[0])
        random.setstate(states[1])
        np.random.set_state(states[2])


def random_states() -> tuple[Any, ...]:
    """Equal as long as nobody has drawn from them."""
    state: Any = np.random.get_state()
    return torch.default_generator.get_state().numpy().tobytes(), random.getstate(), state[1].tobytes(), state[2:]
