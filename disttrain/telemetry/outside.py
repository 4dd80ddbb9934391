"""Sinks that are not ours: each in a thread of its own, so that a slow, hanging or failing one holds up no training."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from disttrain.telemetry.sinks import Sink

logger = logging.getLogger("disttrain")

BACKLOG = 10_000
"""Records that may wait for a sink; while so many do, further ones are lost to it."""
PATIENCE = {"finished": 60.0}
"""Seconds that the end of a run waits for a sink to take the rest, by how the run ended."""
HURRY = 10.0
BEGINNING = 300.0
"""Seconds that a sink may take to be made; the ranks wait meanwhile."""


class OutsideSink:
    """Makes a sink and hands it records, all in one thread. What it raises is logged once, with its name, and it is given no
    more; ``metrics.jsonl`` has every record in any case.

    Raises:
        Exception: whatever ``make`` raises; a ``TimeoutError`` if it takes too long.
    """

    def __init__(self, name: str, make: Callable[[], Sink]) -> None:
        self._name = name
        self._records: queue.Queue[Mapping[str, object] | None] = queue.Queue(BACKLOG)
        self._patience = HURRY
        self._troubled = self._closed = False
        made: queue.Queue[Exception | None] = queue.Queue()
        self._thread = threading.Thread(target=self._live, args=(make, made), name=f"sink {name}", daemon=True)
        self._thread.start()
        try:
            error = made.get(timeout=BEGINNING)
        except queue.Empty:
            raise TimeoutError(f"not there after {BEGINNING:.0f} s") from None
        if error is not None:
            raise error

    def log(self, record: Mapping[str, object]) -> None:
        if record.get("event") == "end":
            self._patience = PATIENCE.get(str(record.get("state")), HURRY)
        if not self._thread.is_alive():
            return
        try:
            self._records.put_nowait(dict(record))
        except queue.Full:
            self._warn("does not keep up: some records are lost to it")

    def close(self) -> None:
        if self._closed:  # and not waited for once more
            return
        self._closed = True
        with suppress(queue.Full):  # said below
            self._records.put(None, timeout=self._patience)
        self._thread.join(self._patience)
        if self._thread.is_alive():
            self._warn(f"did not take everything within {self._patience:.0f} s")

    def _live(self, make: Callable[[], Sink], made: queue.Queue[Exception | None]) -> None:
        try:
            sink = make()
        except Exception as error:
            made.put(error)
            return
        except BaseException as error:  # sys.exit(), which in a thread ends nothing but that
            made.put(RuntimeError(f"{type(error).__name__}: {error}"))
            return
        made.put(None)
        try:
            while (record := self._records.get()) is not None:
                sink.log(record)
        except BaseException as error:
            self._fail(error)
        try:
            sink.close()
        except BaseException as error:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        text = str(error).strip().partition("\n")[0]
        self._warn(f"failed and gets nothing more: {type(error).__name__}: {text}")

    def _warn(self, what: str) -> None:
        if not self._troubled:
            self._troubled = True
            logger.warning("log.sinks: %s %s; the run goes on, and metrics.jsonl has everything", self._name, what)


def kept_id(path: Path, new: str) -> str:
    """The id in a file, or ``new`` if there is none, which is then kept there: by a rename, so that a kill leaves no empty id."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.tmp")
        temporary.write_text(new, encoding="utf-8")
        temporary.replace(path)
    return path.read_text(encoding="utf-8").strip()
