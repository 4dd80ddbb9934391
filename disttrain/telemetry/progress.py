"""Which kind of progress a stream can show."""

from __future__ import annotations

import sys
from typing import TextIO

from disttrain.telemetry.live import LiveProgress
from disttrain.telemetry.outlet import Outlet
from disttrain.telemetry.plain import PlainProgress
from disttrain.telemetry.sinks import Sink


def progress_sink(total_samples: int, stream: TextIO | None = None, *, live: bool = True) -> Sink:
    """A live bar where ``stream`` (by default standard output) is a terminal, plain lines elsewhere.

    Either goes silent, and never fails, when the stream is closed at the other end.

    Args:
        total_samples: number of training samples in the whole run, also when it is resumed.
        stream: where to print.
        live: whether a live bar may be shown. mpirun gives its ranks a terminal of its own even when nobody looks at it,
            and copies what they write line by line, so a bar is no use there.
    """
    outlet = Outlet(stream if stream is not None else sys.stdout)
    console = outlet.console()
    if live and console.is_terminal and not console.is_dumb_terminal:
        return LiveProgress(console, total_samples)
    return PlainProgress(outlet, total_samples)
