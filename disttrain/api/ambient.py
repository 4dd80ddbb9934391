"""A process in which disttrain is one guest among others: what a run sets is put back when it is over."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch

from disttrain.engine.base import Engine
from disttrain.engine.blame import headline
from disttrain.engine.environment import read_launch, time_limit
from disttrain.engine.select import first_time, make_engine
from disttrain.engine.stop import StopRequest, stop_request
from disttrain.engine.world import World, pin_device
from disttrain.errors import DisttrainError, InputError, PeerLostError, RankError
from disttrain.precision import SWITCHES

_running = threading.Lock()


@contextmanager
def alone() -> Iterator[None]:
    """One at a time in a process, and afterwards random states and torch's switches are what they were.

    Raises:
        InputError: another one is at work: it shares torch's random state and switches, and would not be repeatable.
    """
    if not _running.acquire(blocking=False):
        raise InputError(
            "another training is at work in this process, and both would share torch's random state: run them one after "
            "another (in Optuna, n_jobs=1), or in processes of their own"
        )
    with ExitStack() as restore:
        restore.callback(_running.release)
        restore.enter_context(torch.random.fork_rng(devices=_devices()))
        restore.callback(random.setstate, random.getstate())
        restore.callback(np.random.set_state, np.random.get_state())
        restore.callback(torch.set_default_dtype, torch.get_default_dtype())
        restore.callback(torch.set_float32_matmul_precision, torch.get_float32_matmul_precision())
        for backend, names in SWITCHES.items():
            for name in names:
                restore.callback(setattr, backend, name, getattr(backend, name))
        yield


@contextmanager
def joined(engine: str | Engine, device: str, timeout_seconds: float | None) -> Iterator[tuple[Engine, StopRequest]]:
    """The engine of this rank, joined here and left again (one that is passed stays as it is), and its request to stop.

    Raises:
        DisttrainError: whatever ends the job. All ranks leave in good order what all of them raise; otherwise the others notice
            within seconds, and raise a :class:`PeerLostError`.
    """
    with stop_request() as stop:
        if isinstance(engine, Engine):
            yield engine, stop
            return
        first_time()
        launch = read_launch()
        world = World.of(launch, pin_device(launch, device))
        mine = make_engine(engine, world, timeout_seconds=time_limit(timeout_seconds))
        try:
            yield mine, stop
        except Exception as error:
            if getattr(error, "everywhere", False):
                mine.close()
                raise
            mine.abort()
            if mine.lost_peer(error):
                raise PeerLostError(f"rank {world.rank} stopped {mine.phase}: another rank went away first") from None
            if isinstance(error, DisttrainError):
                raise
            raise RankError(f"rank {world.rank} failed {mine.phase}: {headline(error)}") from error
        except BaseException:
            mine.abort()
            raise
        mine.close()


def _devices() -> list[int]:
    """GPUs whose random state a run may change."""
    return [torch.cuda.current_device()] if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
