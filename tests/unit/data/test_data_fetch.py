"""Downloads, from a web server on this machine (row 51)."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from disttrain.data.fetch import SOURCES, RemoteFile, Source, fetch
from disttrain.errors import DataError, InputError

GOOD = {"one.gz": b"first file" * 20000, "two.gz": b"second"}


class Server:
    """Serves ``files``; counts what was asked for."""

    def __init__(self) -> None:
        self.files = dict(GOOD)
        self.asked: list[str] = []
        self.cut = False
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                name = self.path.rsplit("/", 1)[-1]
                outer.asked.append(self.path)
                if name not in outer.files:
                    self.send_error(404)
                    return
                body = outer.files[name]
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[: len(body) // 2] if outer.cut else body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = Server()
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.http.shutdown()
    server.http.server_close()
    thread.join()


def source(*mirrors: str) -> Source:
    files = tuple(RemoteFile(name, len(data), hashlib.md5(data).hexdigest()) for name, data in GOOD.items())
    return Source(files, mirrors)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_downloads_and_reports_progress(server: Server, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    folder = tmp_path / "deep" / "folder"
    paths = fetch(source(server.url), folder, progress=lambda *step: seen.append(step))
    assert paths == [folder / "one.gz", folder / "two.gz"]
    assert contents(folder) == GOOD
    assert seen[-1] == ("two.gz", 6, 6)
    amounts = [done for name, done, _ in seen if name == "one.gz"]
    assert amounts == sorted(amounts)
    assert amounts[-1] == 200000


def test_files_get_the_usual_permissions(server: Server, tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        path = fetch(source(server.url), tmp_path)[0]
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o640


def test_good_files_are_kept_and_bad_ones_replaced(server: Server, tmp_path: Path) -> None:
    (tmp_path / "one.gz").write_bytes(GOOD["one.gz"])
    (tmp_path / "two.gz").write_bytes(b"sEcond")
    fetch(source(server.url), tmp_path)
    assert contents(tmp_path) == GOOD
    assert server.asked == ["/two.gz"]


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        (b"seconD", "has md5 "),
        (b"secon", "sent 5 bytes, expected 6"),
        (b"second" * 1000, "sent more than 6 bytes"),
        (b"", "sent 0 bytes"),
    ],
)
def test_row_51_wrong_contents_are_refused_and_removed(
    server: Server, tmp_path: Path, sent: bytes, message: str
) -> None:
    server.files["two.gz"] = sent
    (tmp_path / "two.gz").write_bytes(b"old")
    amounts = {"one.gz": 0, "two.gz": 0}
    with pytest.raises(DataError, match=r"could not fetch two\.gz") as caught:
        fetch(source(server.url), tmp_path, progress=lambda name, done, _: amounts.update({name: done}))
    assert message in str(caught.value)
    assert amounts["two.gz"] <= 7
    assert contents(tmp_path) == {"one.gz": GOOD["one.gz"], "two.gz": b"old"}


def test_a_connection_that_breaks_off(server: Server, tmp_path: Path) -> None:
    server.cut = True
    with pytest.raises(InputError, match=r"could not fetch one\.gz"):
        fetch(source(server.url), tmp_path)
    assert contents(tmp_path) == {}


def test_the_next_mirror_is_tried(server: Server, tmp_path: Path) -> None:
    bad = server.url + "empty/"
    server.files.pop("one.gz")
    with pytest.raises(InputError, match="404"):
        fetch(source(bad, server.url), tmp_path)
    assert server.asked == ["/empty/one.gz", "/one.gz"]
    server.files["one.gz"] = GOOD["one.gz"]
    closed = "http://127.0.0.1:9/"
    fetch(source(closed, server.url), tmp_path)
    assert contents(tmp_path) == GOOD


def test_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with pytest.raises(InputError) as caught:
        fetch(source("http://127.0.0.1:9/"), tmp_path)
    message = str(caught.value)
    assert not isinstance(caught.value, DataError)
    assert "http://127.0.0.1:9/one.gz cannot be read" in message
    assert f"put it into {tmp_path}" in message
    assert contents(tmp_path) == {}


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write to"):
        fetch(source("http://127.0.0.1:9/"), tmp_path / "file")


def test_unknown_sets_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no data set is called 'cifar'; there are fashion_mnist, mnist"):
        fetch("cifar", tmp_path)


def test_the_table_knows_the_real_fashion_mnist(data_root: Path, tmp_path: Path) -> None:
    """Nothing is asked of the network when the files are there, which needs size and checksum of all to be right."""
    for path in (data_root / "fashion-mnist").iterdir():
        (tmp_path / path.name).symlink_to(path)
    files = fetch(Source(SOURCES["fashion_mnist"].files, mirrors=()), tmp_path)
    assert len(files) == 4
