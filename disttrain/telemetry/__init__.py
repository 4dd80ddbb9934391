"""What a run tells: metrics to files, TensorBoard, W&B, MLflow and sinks of your own, progress to the terminal, and a log file
per rank.

Everything a run reports is a *record*, a plain dictionary of numbers and text. There are three kinds:

- training: ``step, epoch, samples, loss, lr, grad_norm, samples_per_second``;
- evaluation, told by ``split``: ``split, step, epoch, samples, loss, accuracy``;
- event, told by ``event``: its name, and whatever belongs to it. A ``message`` is text for people. The event ``samples``
  (the ids of an update) is for programs and not printed. The last event of a run is ``end``: its ``state`` (``finished``,
  ``stopped`` on request, or ``failed`` with a ``message``), and of a finished run the summary.

``samples`` counts training samples since the start of the run, ``accuracy`` is a fraction of 1, and times are in
seconds. Any kind may have more keys, and a value may be numbers by name (of each layer, of each loss). Each line of
``metrics.jsonl`` has a ``time`` besides, when it was written, in UTC.
"""

from __future__ import annotations

from disttrain.telemetry.jsonl import JsonlSink, Truncated, truncate_after
from disttrain.telemetry.live import LiveProgress
from disttrain.telemetry.logfile import echo_warnings, open_log
from disttrain.telemetry.make import make_sinks
from disttrain.telemetry.outside import OutsideSink
from disttrain.telemetry.plain import PlainProgress
from disttrain.telemetry.progress import progress_sink
from disttrain.telemetry.run import run_sink
from disttrain.telemetry.sinks import NullSink, Sink, Sinks
from disttrain.telemetry.summary import print_summary
from disttrain.telemetry.tensorboard import tensorboard_sink

__all__ = [
    "JsonlSink",
    "LiveProgress",
    "NullSink",
    "OutsideSink",
    "PlainProgress",
    "Sink",
    "Sinks",
    "Truncated",
    "echo_warnings",
    "make_sinks",
    "open_log",
    "print_summary",
    "progress_sink",
    "run_sink",
    "tensorboard_sink",
    "truncate_after",
]
