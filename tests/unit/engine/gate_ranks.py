"""Ranks as threads: enough of an engine for the gate of set-up."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable
from typing import Any

import torch

from disttrain.engine.local import LocalEngine
from disttrain.engine.world import World


class _Meeting:
    def __init__(self, size: int) -> None:
        self.values: list[bytes] = [b""] * size
        self.barrier = threading.Barrier(size, timeout=20)


class ThreadEngine(LocalEngine):
    """Objects travel pickled, as between processes."""

    def __init__(self, rank: int, size: int, meeting: _Meeting, local_size: int) -> None:
        super().__init__(World(rank, size, rank % local_size, local_size, rank // local_size, torch.device("cpu")))
        self._meeting = meeting

    def all_gather_object(self, value: Any) -> list[Any]:
        self._meeting.values[self.world.rank] = pickle.dumps(value)
        self._meeting.barrier.wait()
        found = [pickle.loads(data) for data in self._meeting.values]
        self._meeting.barrier.wait()
        return found

    def broadcast_object(self, value: Any) -> Any:
        return self.all_gather_object(value)[0]


def on_ranks(size: int, action: Callable[[ThreadEngine], object], local_size: int = 0) -> list[Any]:
    """What ``action`` returned or raised on each of ``size`` ranks."""
    meeting, results = _Meeting(size), [None] * size

    def run(rank: int) -> None:
        try:
            results[rank] = action(ThreadEngine(rank, size, meeting, local_size or size))  # type: ignore[call-overload]
        except Exception as error:
            results[rank] = error  # type: ignore[call-overload]

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return results
