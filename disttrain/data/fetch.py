"""Download of public data sets: verified, atomic, repeatable."""

from __future__ import annotations

import hashlib
import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from disttrain.errors import DataError, InputError

Progress = Callable[[str, int, int], None]
"""Called with the name of the file, the bytes so far, and the bytes it has in all."""

_CHUNK = 1 << 16
_TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True)
class RemoteFile:
    """One file of a set, as its publisher describes it."""

    name: str
    num_bytes: int
    md5: str


@dataclass(frozen=True)
class Source:
    """A data set: its files, and the addresses of the folders that hold them, tried in this order."""

    files: tuple[RemoteFile, ...]
    mirrors: tuple[str, ...]


SOURCES = {
    "fashion_mnist": Source(
        files=(
            RemoteFile("train-images-idx3-ubyte.gz", 26421880, "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
            RemoteFile("train-labels-idx1-ubyte.gz", 29515, "25c81989df183df01b3e8a0aad5dffbe"),
            RemoteFile("t10k-images-idx3-ubyte.gz", 4422102, "bef4ecab320f06d8554ea6380940ec79"),
            RemoteFile("t10k-labels-idx1-ubyte.gz", 5148, "bb300cfdad3c16e7a12a480ee83cd310"),
        ),
        mirrors=(
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        ),
    ),
    "mnist": Source(
        files=(
            RemoteFile("train-images-idx3-ubyte.gz", 9912422, "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
            RemoteFile("train-labels-idx1-ubyte.gz", 28881, "d53e105ee54ea40749a09fcbcd1e9432"),
            RemoteFile("t10k-images-idx3-ubyte.gz", 1648877, "9fb629c4189551a2d022fa330f9573f3"),
            RemoteFile("t10k-labels-idx1-ubyte.gz", 4542, "ec29112dd5afa0611ce80d1b7f02629c"),
        ),
        mirrors=("https://ossci-datasets.s3.amazonaws.com/mnist/",),
    ),
}


def fetch(source: str | Source, directory: str | PathLike[str], *, progress: Progress | None = None) -> list[Path]:
    """Download a data set into ``directory``, which is made if need be.

    A file that is there with the right contents is kept; any other is replaced once its successor is
    verified. At no time does a file stand under its final name with wrong contents.

    Args:
        source: "fashion_mnist", "mnist" or a :class:`Source`.
        progress: called while a file comes in.

    Returns:
        The paths of the files.

    Raises:
        InputError: the name is unknown, no mirror could be reached, or the directory cannot be written.
        DataError: what a mirror sent has the wrong size or checksum.
    """
    if isinstance(source, str):
        if source not in SOURCES:
            raise InputError(f"no data set is called {source!r}; there are {', '.join(SOURCES)}")
        source = SOURCES[source]
    folder = Path(directory)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return [_fetch_file(file, source.mirrors, folder, progress) for file in source.files]
    except OSError as error:
        raise InputError(f"cannot write to {folder}: {error.strerror or error}") from error


def _fetch_file(file: RemoteFile, mirrors: tuple[str, ...], folder: Path, progress: Progress | None) -> Path:
    path = folder / file.name
    if path.is_file() and path.stat().st_size == file.num_bytes and _md5(path) == file.md5:
        return path
    partial = folder / f".{file.name}.{os.getpid()}.part"
    failures: list[InputError] = []
    try:
        for mirror in mirrors:
            try:
                _download(mirror + file.name, file, partial, progress)
            except InputError as error:
                failures.append(error)
                continue
            partial.replace(path)
            return path
    finally:
        partial.unlink(missing_ok=True)
    wrong = any(isinstance(failure, DataError) for failure in failures)
    reasons = "; ".join(map(str, failures))
    raise (DataError if wrong else InputError)(
        f"could not fetch {file.name}: {reasons}. Check the network and proxy settings, or download the file "
        f"elsewhere (md5 {file.md5}) and put it into {folder}"
    )


def _download(url: str, file: RemoteFile, partial: Path, progress: Progress | None) -> None:
    digest = hashlib.md5(usedforsecurity=False)
    done = 0
    with partial.open("wb") as out:
        # One byte more than expected is enough to know that a file is too long; the rest is not waited for.
        for chunk in _chunks(url, file.num_bytes + 1):
            out.write(chunk)
            digest.update(chunk)
            done += len(chunk)
            if progress is not None:
                progress(file.name, done, file.num_bytes)
        out.flush()
        os.fsync(out.fileno())
    if done != file.num_bytes:
        sent = f"more than {file.num_bytes}" if done > file.num_bytes else str(done)
        raise DataError(f"{url} sent {sent} bytes, expected {file.num_bytes}")
    if digest.hexdigest() != file.md5:
        raise DataError(f"{url} has md5 {digest.hexdigest()}, expected {file.md5}")


def _chunks(url: str, limit: int) -> Iterator[bytes]:
    """The contents of ``url``, at most ``limit`` bytes. Only what the network does wrong becomes an
    InputError here."""
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS) as response:
            while limit > 0 and (chunk := response.read(min(_CHUNK, limit))):
                limit -= len(chunk)
                yield chunk
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        raise InputError(f"{url} cannot be read ({error})") from error


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
