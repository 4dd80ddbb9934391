"""What a path may lead to, and in which bytes a recipe may come."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from config_cases import GOOD, load, mistakes

from disttrain.config import RecipeError, load_recipe
from disttrain.config.reading.source import MAX_BYTES


def refusal(path: Path) -> str:
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    return str(caught.value).removeprefix(f"{path}: ")


def test_a_byte_order_mark_and_windows_line_ends_do_not_matter(tmp_path: Path) -> None:
    plain = load(tmp_path, GOOD)
    assert load(tmp_path, b"\xef\xbb\xbf" + GOOD.encode()) == plain
    assert load(tmp_path, GOOD.replace("\n", "\r\n").encode()) == plain


def test_bytes_that_are_not_utf_8_are_refused_with_their_line(tmp_path: Path) -> None:
    assert mistakes(tmp_path, GOOD.encode() + b"# caf\xe9\n") == [
        "r.yaml:6: byte 0xE9 is not UTF-8; save the file as UTF-8"
    ]
    assert mistakes(tmp_path, GOOD.encode("utf-16")) == ["r.yaml: is UTF-16 text; save it as UTF-8"]
    assert mistakes(tmp_path, GOOD.encode() + b"\n\0") == ["r.yaml:7: holds a NUL byte; expected UTF-8 text"]


def test_a_file_of_the_largest_size_is_read_and_one_byte_more_is_not(tmp_path: Path) -> None:
    padding = b"#" * (MAX_BYTES - len(GOOD) - 1) + b"\n"
    assert mistakes(tmp_path, GOOD.encode() + padding) == []
    assert mistakes(tmp_path, GOOD.encode() + b"#" + padding) == [
        "r.yaml: is larger than 1,048,576 bytes, the most a recipe may have"
    ]


def test_a_missing_file_is_compared_with_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "imagenet.yaml").touch()
    (tmp_path / "imagenot.txt").touch()
    assert refusal(tmp_path / "imagent.yaml") == (f"there is no such file; did you mean {tmp_path / 'imagenet.yaml'}?")
    assert refusal(tmp_path / "zzz.yaml") == "there is no such file"
    assert refusal(tmp_path / "none" / "x.yaml") == (
        f"there is no such file; there is no directory {tmp_path / 'none'} either"
    )


def test_what_is_no_file_is_neither_opened_nor_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        assert refusal(tmp_path / "s") == "is not a regular file"
    assert refusal(tmp_path / "pipe") == "is not a regular file"
    assert refusal(tmp_path) == "is a directory; expected a recipe file"
    assert refusal(Path("/dev/zero")) == "is not a regular file"


def test_links_are_followed_unless_they_go_round(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(GOOD)
    (tmp_path / "link.yaml").symlink_to("r.yaml")
    assert load_recipe(tmp_path / "link.yaml").name == "small"
    (tmp_path / "round.yaml").symlink_to("round.yaml")
    assert refusal(tmp_path / "round.yaml").startswith("cannot be read: Too many levels of symbolic links")


def test_an_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "r.yaml").write_text(GOOD)

    def deny(self: Path, mode: str) -> None:  # root may read everything, so that permissions cannot show it
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", deny)
    assert refusal(tmp_path / "r.yaml") == "cannot be read: Permission denied"


def test_paths_that_cannot_be() -> None:
    assert refusal(Path("a\0b")).endswith("is not a path: embedded null byte")
    assert refusal(Path("x" * 300)) == "cannot be read: File name too long"


@pytest.mark.parametrize(
    ("file", "name"),
    [("big-run.yaml", "big-run"), ("my run ü.yaml", "my-run--"), (".hidden.yaml", "hidden"), ("...", "run")],
)
def test_the_file_gives_the_run_its_name(tmp_path: Path, file: str, name: str) -> None:
    (tmp_path / file).write_text(GOOD.replace("name: small\n", ""))
    assert load_recipe(tmp_path / file).name == name
    assert load_recipe(tmp_path / file, ["name=other"]).name == "other"
