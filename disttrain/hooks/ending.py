"""The last event of a run: how it ended."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

from disttrain.engine.blame import headline
from disttrain.errors import DisttrainError, StopRequested
from disttrain.hooks.view import Running
from disttrain.telemetry import Sink


class End(Protocol):
    def __call__(self, state: str, **more: object) -> None: ...


@contextmanager
def ending(run: Running, sink: Sink) -> Iterator[End]:
    """Around a training: whatever ends it is the last event that ``sink`` gets. Call what is yielded if it was not an error."""

    def end(state: str, **more: object) -> None:
        known = {name: value for name, value in more.items() if value is not None}
        sink.log({"event": "end", "state": state, "step": run.progress.position.updates, **known})

    try:
        yield end
    except StopRequested:
        end("stopped")
        raise
    except BaseException as error:
        with suppress(DisttrainError):  # the file that cannot be written may be what ends the run
            end("failed", message=headline(error).partition("\n")[0])
        raise
