"""Standard output that may go away: ``disttrain train | head -1`` must not end the training."""

from __future__ import annotations

import io
import logging
import os
from typing import IO, TextIO, cast

from rich.console import Console

logger = logging.getLogger("disttrain")


class Outlet(io.TextIOBase):
    """Writes to another stream until that fails, says so once in the log, and from then on drops what it is given.

    The stream is None where Python was started with standard output closed; then everything is dropped.
    """

    def __init__(self, stream: TextIO | None) -> None:
        super().__init__()
        self._stream = stream

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return getattr(self._stream, "encoding", None) or "utf-8"

    def console(self) -> Console:
        """A rich console that prints here."""
        return Console(file=cast(IO[str], self))

    def isatty(self) -> bool:
        return self._stream is not None and self._stream.isatty()

    def fileno(self) -> int:
        if self._stream is None:
            raise io.UnsupportedOperation("fileno")
        return self._stream.fileno()

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if self._stream is not None:
            try:
                try:
                    self._stream.write(text)
                except UnicodeEncodeError:
                    self._stream.write(text.encode(self.encoding, "replace").decode(self.encoding))
            except (OSError, ValueError) as error:
                self._give_up(self._stream, error)
        return len(text)

    def flush(self) -> None:
        if self._stream is not None:
            try:
                self._stream.flush()
            except (OSError, ValueError) as error:
                self._give_up(self._stream, error)

    def _give_up(self, stream: TextIO, error: Exception) -> None:
        self._stream = None
        logger.warning("standard output cannot be written (%s); nothing more is printed, the run goes on", error)
        try:
            # What is still in the buffer would fail once more when Python flushes it at exit, and spoil the exit code.
            null = os.open(os.devnull, os.O_WRONLY)
            try:
                os.dup2(null, stream.fileno())
            finally:
                os.close(null)
        except (OSError, ValueError):
            pass  # no file behind the stream, or it is closed: then there is nothing to flush either
