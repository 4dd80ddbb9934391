"""Long work of every rank by itself, such as compiling, during which no rank may be taken for lost."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from disttrain.engine.agreement import everyone
from disttrain.engine.base import Engine

T = TypeVar("T")


def patiently(engine: Engine, action: Callable[[], T], interval_seconds: float = 1.0) -> T:
    """:func:`everyone`, for an ``action`` that exchanges nothing and may take longer than a collective waits.

    Meanwhile a thread exchanges a sign of life about every ``interval_seconds``, until all ranks are done: however long one
    takes, no collective of the others waits for it.

    Raises:
        DisttrainError: on every rank, as :func:`everyone` does.
    """
    done = threading.Event()

    def live() -> None:
        while int(engine.all_reduce(torch.tensor([int(done.is_set())]))) < engine.world.size:
            done.wait(interval_seconds)

    with ThreadPoolExecutor(1) as pool:
        life = pool.submit(live)
        try:
            result = action()
            outcome: Callable[[], T] = lambda: result  # noqa: E731
        except Exception as error:
            failure = error

            def outcome() -> T:
                raise failure
        finally:
            done.set()
        life.result()
    return everyone(engine, outcome)
