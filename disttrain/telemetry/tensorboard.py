"""Records as TensorBoard scalars. TensorBoard is optional and only imported when a sink is made."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from disttrain.telemetry.sinks import NullSink, Sink

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

logger = logging.getLogger("disttrain")

FLUSH_SECONDS = 10
"""How much may be missing in TensorBoard after a kill."""


class TensorBoardSink:
    """Writes every number of a record as ``train/NAME``, or ``SPLIT/NAME`` where it is an evaluation (``train_set/NAME`` on the
    train set, to stay apart from the losses of updates), over the step, and numbers by name within it as
    ``train/NAME/KEY``. Events are not written."""

    def __init__(self, writer: SummaryWriter) -> None:
        self._writer = writer

    def log(self, record: Mapping[str, object]) -> None:
        step = record.get("step")
        if "event" in record or not isinstance(step, int):
            return
        split = record.get("split")
        group = "train" if split is None else "train_set" if split == "train" else split
        for name, value in _numbers({k: v for k, v in record.items() if k not in ("step", "samples")}):
            self._writer.add_scalar(f"{group}/{name}", value, step)

    def close(self) -> None:
        self._writer.close()


def _numbers(record: Mapping[str, object]) -> Iterator[tuple[str, float]]:
    for name, value in record.items():
        if isinstance(value, Mapping):
            yield from ((f"{name}/{key}", inner) for key, inner in _numbers(value))
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield name, value


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
    return TensorBoardSink(SummaryWriter(str(directory), purge_step=purge_step, flush_secs=FLUSH_SECONDS))
