"""Progress as a bar on a terminal, with the newest numbers; everything else scrolls by above it."""

from __future__ import annotations

import time
from collections.abc import Mapping

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.table import Column

from disttrain.telemetry.lines import describe, is_for_people, training_in_short

SECONDS_BETWEEN_DRAWINGS = 0.1
TEXT_WIDTH = 72
"""Columns that the text beside the bar usually takes."""


class LiveProgress:
    """Draws a bar over the samples of the run.

    It is drawn when a record comes, at most ten times a second, and not by a thread that would compete with training.

    Args:
        console: the terminal.
        total_samples: number of training samples in the whole run.
    """

    def __init__(self, console: Console, total_samples: int) -> None:
        self._total_samples = total_samples
        self._drawn_at = -SECONDS_BETWEEN_DRAWINGS
        self._progress = Progress(
            BarColumn(bar_width=min(20, max(8, console.width - TEXT_WIDTH))),
            TaskProgressColumn(),
            TextColumn(
                "{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)
            ),
            console=console,
            auto_refresh=False,
            expand=True,
        )
        self._task = self._progress.add_task("starting", total=total_samples)
        self._progress.start()

    def log(self, record: Mapping[str, object]) -> None:
        if not is_for_people(record):
            return
        if "event" not in record and "split" not in record:
            self._update(record)
        else:
            self._progress.console.print(describe(record, self._total_samples), markup=False, highlight=False)

    def close(self) -> None:
        self._progress.stop()

    def _update(self, record: Mapping[str, object]) -> None:
        samples = record.get("samples")
        self._progress.update(
            self._task,
            description=training_in_short(record, self._total_samples),
            completed=float(samples) if isinstance(samples, int | float) else None,
        )
        now = time.monotonic()
        if now - self._drawn_at >= SECONDS_BETWEEN_DRAWINGS:
            self._drawn_at = now
            self._progress.refresh()
