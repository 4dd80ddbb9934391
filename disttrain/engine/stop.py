"""Stopping on request: a signal to any one rank ends the job on all ranks after the same update."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import torch

from disttrain.engine.base import Engine

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class StopRequest:
    """Set by a signal; read between updates."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def __bool__(self) -> bool:
        return self.signal is not None

    def note(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.signal is not None:
            raise KeyboardInterrupt  # a second Control-C is meant
        self.signal = number


@contextmanager
def stop_request() -> Iterator[StopRequest]:
    """SIGTERM, SIGUSR1 and the first SIGINT become a request to stop while this is entered; in a thread other than the first,
    where Python handles no signals, nothing changes. Entered within itself it is the same request: what came between two
    trainings, or while one of them was made or ended, is not lost."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    outer = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    if isinstance(outer, StopRequest):
        yield outer
        return
    before = {number: signal.signal(number, request.note) for number in SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def stop_requests(engine: Engine) -> Iterator[Callable[[], bool]]:
    """For a loop of your own: SIGTERM, SIGUSR1 and the first SIGINT no longer end this process; what is yielded says whether any
    rank got one.

    Call it once after every update, on every rank: it is True on all ranks or on none. Then save, and leave with the exit code
    75 (``disttrain.errors.StopRequested.exit_code``) once the engine is closed.

    Example::

        with disttrain.init() as engine, disttrain.stop_requests(engine) as stop:
            for batch in loader:
                ...
                if stop():
                    state.save()
                    return 75
    """
    vote = StopVote(engine)
    with stop_request() as request:
        yield lambda: vote(bool(request))


class StopVote:
    """Lets all ranks agree, after the same update, that one of them was asked to stop.

    A vote is one small all-reduce of CPU tensors, so it never waits for an accelerator. There are only as many as needed
    for an answer within ``interval_seconds`` (or one update, where updates take longer): rank 0 says in each vote when
    the next one is.
    """

    def __init__(self, engine: Engine, interval_seconds: float = 0.5) -> None:
        self._engine = engine
        self._interval = interval_seconds
        self._seen = 0
        self._next = 1
        self._since = time.monotonic()

    def __call__(self, wants_to_stop: bool) -> bool:
        """Called by every rank after every update; True on all ranks or on none."""
        self._seen += 1
        if self._seen < self._next:
            return False
        now = time.monotonic()
        per_update = (now - self._since) / self._seen
        self._seen, self._since = 0, now
        proposal = max(1, min(int(self._interval / max(per_update, 1e-6)), 2 * self._next, 10_000))
        ballot = torch.tensor([int(wants_to_stop), proposal if self._engine.world.is_main else 0])
        self._engine.all_reduce(ballot)
        self._next = int(ballot[1])
        return bool(ballot[0])
