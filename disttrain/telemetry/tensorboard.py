"""Records as TensorBoard scalars. TensorBoard is optional and only imported when a sink is made."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from disttrain.telemetry.layout import batch_of, layout
from disttrain.telemetry.scalars import scalars
from disttrain.telemetry.sinks import NullSink, Sink

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

logger = logging.getLogger("disttrain")

FLUSH_SECONDS = 10
"""How much may be missing in TensorBoard after a kill."""


class TensorBoardSink:
    """Writes every number of a record over the step, by the names of `disttrain.telemetry.scalars`, and the global batch."""

    def __init__(self, writer: SummaryWriter) -> None:
        self._writer = writer

    def log(self, record: Mapping[str, object]) -> None:
        step = record.get("step")
        for name, value in {**scalars(record), **batch_of(record)}.items():
            if not name.endswith("/samples"):  # it would be the step once more
                self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


def tensorboard_sink(directory: Path, resumed_at: int | None = None) -> Sink:
    """A sink that writes to ``directory``; where TensorBoard is not installed, one that does nothing, and a log line.

    Args:
        directory: where the event files go; it is created.
        resumed_at: step of the checkpoint the run resumed from; TensorBoard then hides what an earlier process
            wrote past it.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        logger.warning(
            "TensorBoard is not installed, so nothing is written to %s (%s); pip install 'disttrain[tensorboard]'",
            directory,
            error,
        )
        return NullSink()
    purge_step = None if resumed_at is None else resumed_at + 1
    writer = SummaryWriter(str(directory), purge_step=purge_step, flush_secs=FLUSH_SECONDS)
    writer.add_custom_scalars(layout())
    return TensorBoardSink(writer)
