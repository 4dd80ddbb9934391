"""All that a run reports to, on the one rank that reports."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from disttrain.telemetry.jsonl import JsonlSink
from disttrain.telemetry.progress import progress_sink
from disttrain.telemetry.sinks import NullSink, Sink, Sinks


def run_sink(
    run_dir: Path, *, total_samples: int, others: Sequence[Sink] = (), live: bool = True, quiet: bool = False
) -> Sink:
    """The metrics file, the recipe's sinks, and standard output.

    Args:
        run_dir: directory of the run; it must exist.
        total_samples: number of training samples in the whole run, also when it is resumed.
        others: what ``log.sinks`` asks for (see `make_sinks`); they are closed too.
        live: whether a live bar may be shown; see `progress_sink`.
        quiet: nothing on standard output.

    Raises:
        DisttrainError: the metrics file cannot be opened.
    """
    shown: Sink = NullSink() if quiet else progress_sink(total_samples, live=live)
    return Sinks([JsonlSink(run_dir / "metrics.jsonl"), *others, shown])
