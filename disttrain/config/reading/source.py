"""The text of a recipe file, from anything that a path may lead to."""

from __future__ import annotations

import codecs
import stat
from pathlib import Path

from disttrain.config.reading.problems import Problem, RecipeError
from disttrain.config.reading.suggest import similar

MAX_BYTES = 2**20


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, without its byte order mark.

    Raises:
        RecipeError: it is missing, no regular file (a pipe or a device would block or never end), not readable, larger
            than ``MAX_BYTES``, or not UTF-8 text.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise _refuse(path, "is a directory; expected a recipe file" if path.is_dir() else "is not a regular file")
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise _refuse(path, f"there is no such file{_neighbour(path)}") from None
    except OSError as error:
        raise _refuse(path, f"cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise _refuse(path, f"is not a path: {error}") from None
    if len(raw) > MAX_BYTES:
        raise _refuse(path, f"is larger than {MAX_BYTES:,} bytes, the most a recipe may have")
    return _decode(path, raw)


def _decode(path: Path, raw: bytes) -> str:
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise _refuse(path, "is UTF-16 text; save it as UTF-8")
    if b"\0" in raw:
        raise _refuse(path, "holds a NUL byte; expected UTF-8 text", raw[: raw.index(b"\0")].count(b"\n") + 1)
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise _refuse(path, f"byte 0x{raw[error.start]:02X} is not UTF-8; save the file as UTF-8", line) from None


def _refuse(path: Path, message: str, line: int = 0) -> RecipeError:
    return RecipeError([Problem(f"{path}:{line}" if line else str(path), "", message, line)])


def _neighbour(path: Path) -> str:
    try:
        names = [p.name for p in path.parent.iterdir() if p.suffix in (".yaml", ".yml")]
    except OSError:
        return f"; there is no directory {path.parent} either" if not path.parent.exists() else ""
    close = similar(path.name, names)
    return f"; did you mean {path.parent / close}?" if close else ""
