"""Joining a job and leaving it, whatever happens in between."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from disttrain.cli.failure import fail, fail_rank
from disttrain.engine.base import Engine
from disttrain.engine.environment import Launch
from disttrain.engine.select import make_engine
from disttrain.engine.stop import StopRequest, stop_request
from disttrain.engine.world import World, pin_device
from disttrain.errors import StopRequested


@contextmanager
def job(
    launch: Launch, engine: str, device: str, timeout_seconds: float | None = None
) -> Iterator[tuple[Engine, StopRequest]]:
    """The engine of this rank and its request to stop. An error inside ends this rank at once; see ``failure``."""
    with stop_request() as stop:
        joined = make_engine(engine, World.of(launch, pin_device(launch, device)), timeout_seconds=timeout_seconds)
        try:
            yield joined, stop
        except StopRequested as request:
            joined.close()
            fail(request)
        except BaseException as error:
            fail_rank(error, joined)
        joined.close()
