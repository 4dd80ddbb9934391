"""Progress as plain lines, for files, pipes and batch systems."""

from __future__ import annotations

from collections.abc import Mapping

from disttrain.telemetry.lines import describe, is_for_people
from disttrain.telemetry.outlet import Outlet


class PlainProgress:
    """Prints one line per record.

    Args:
        outlet: where to print.
        total_samples: number of training samples in the whole run.
    """

    def __init__(self, outlet: Outlet, total_samples: int) -> None:
        self._outlet = outlet
        self._total_samples = total_samples

    def log(self, record: Mapping[str, object]) -> None:
        if not is_for_people(record):
            return
        self._outlet.write(f"{describe(record, self._total_samples)}\n")
        self._outlet.flush()

    def close(self) -> None:
        self._outlet.flush()
