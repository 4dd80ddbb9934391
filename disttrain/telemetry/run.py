"""All that a run reports to, on the one rank that reports."""

from __future__ import annotations

from pathlib import Path

from disttrain.telemetry.jsonl import JsonlSink
from disttrain.telemetry.progress import progress_sink
from disttrain.telemetry.sinks import Sink, Sinks
from disttrain.telemetry.tensorboard import tensorboard_sink


def run_sink(
    run_dir: Path, *, total_samples: int, tensorboard: bool, resumed_at: int | None = None, live: bool = True
) -> Sink:
    """The metrics file, TensorBoard if wanted, and standard output.

    Args:
        run_dir: directory of the run; it must exist.
        total_samples: number of training samples in the whole run, also when it is resumed.
        tensorboard: whether to write ``run_dir/tensorboard/``.
        resumed_at: step of the checkpoint the run resumed from; None in a new run.
        live: whether a live bar may be shown; see `progress_sink`.

    Raises:
        DisttrainError: the metrics file cannot be opened.
    """
    sinks: list[Sink] = [JsonlSink(run_dir / "metrics.jsonl")]
    if tensorboard:
        sinks.append(tensorboard_sink(run_dir / "tensorboard", resumed_at))
    sinks.append(progress_sink(total_samples, live=live))
    return Sinks(sinks)
