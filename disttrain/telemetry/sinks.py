"""Where records go: the protocol, nowhere, and several places at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Protocol


class Sink(Protocol):
    """Something that takes records (see `disttrain.telemetry`) until it is closed."""

    def log(self, record: Mapping[str, object]) -> None:
        """Take one record; it is not kept or changed."""

    def close(self) -> None:
        """Finish; closing twice is the same as closing once."""


class NullSink:
    """Takes everything and does nothing: the sink of every rank but the first."""

    def log(self, record: Mapping[str, object]) -> None:
        pass

    def close(self) -> None:
        pass


class Sinks:
    """Hands each record to several sinks, in order."""

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self._sinks = tuple(sinks)

    def log(self, record: Mapping[str, object]) -> None:
        for sink in self._sinks:
            sink.log(record)

    def close(self) -> None:
        """Close all, last to first, also when one of them fails; the failure is raised when all are closed."""
        with ExitStack() as stack:
            for sink in self._sinks:
                stack.callback(sink.close)
