"""Accidents: every flipped bit, every truncation, and every misplaced file is noticed and named."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from checkpoint_cases import make_checkpoint, read_manifest_json, same_checkpoint, write_manifest_json

from disttrain.checkpoint import load_checkpoint, load_latest, save_checkpoint, verify_checkpoint
from disttrain.errors import CheckpointError


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return save_checkpoint(tmp_path, make_checkpoint(7), keep=3)


def test_every_flipped_bit_is_noticed(saved: Path) -> None:
    flips = 0
    for file in sorted(saved.iterdir()):
        original = file.read_bytes()
        descriptor = os.open(file, os.O_WRONLY)
        try:
            for position, byte in enumerate(original):
                for bit in range(8):
                    os.pwrite(descriptor, bytes([byte ^ 1 << bit]), position)
                    with pytest.raises(CheckpointError):
                        load_checkpoint(saved)
                    flips += 1
                os.pwrite(descriptor, bytes([byte]), position)
        finally:
            os.close(descriptor)
    assert flips == 8 * sum(file.stat().st_size for file in saved.iterdir())
    assert flips > 8_000
    assert same_checkpoint(load_checkpoint(saved), make_checkpoint(7))


def test_every_other_value_of_a_manifest_byte_is_noticed(saved: Path) -> None:
    """Equivalent JSON too: another kind of blank, another case, another order."""
    file = saved / "MANIFEST.json"
    original = file.read_bytes()
    for position, byte in enumerate(original):
        for other in {0, 9, 10, 13, 32, 48, 57, 65, 97, 255, byte ^ 32, (byte + 1) % 256} - {byte}:
            file.write_bytes(original[:position] + bytes([other]) + original[position + 1 :])
            with pytest.raises(CheckpointError, match=r"step-00000007"):
                load_checkpoint(saved)
    for data in (original + b"\n", b" " + original, original.replace(b'": ', b'":'), original[:-1]):
        file.write_bytes(data)
        with pytest.raises(CheckpointError, match=r"MANIFEST\.json"):
            load_checkpoint(saved)


def test_every_truncation_is_noticed_and_named(saved: Path) -> None:
    for file in sorted(saved.iterdir()):
        original = file.read_bytes()
        for length in range(len(original)):
            file.write_bytes(original[:length])
            for check in (load_checkpoint, verify_checkpoint):
                with pytest.raises(CheckpointError, match=file.name):
                    check(saved)
        file.write_bytes(original + b"\0")
        with pytest.raises(CheckpointError, match=file.name):
            verify_checkpoint(saved)
        file.write_bytes(original)
    verify_checkpoint(saved)


def test_every_missing_file_is_named(saved: Path) -> None:
    for file in sorted(saved.iterdir()):
        hidden = file.rename(saved.parent / "hidden")
        with pytest.raises(CheckpointError, match=file.name):
            load_checkpoint(saved)
        hidden.rename(file)


def test_swapped_files_are_noticed(saved: Path) -> None:
    files = sorted(saved.iterdir())
    for a in files:
        for b in files:
            if a < b:
                spare = saved.parent / "spare"
                for source, target in ((a, spare), (b, a), (spare, b)):
                    source.rename(target)
                with pytest.raises(CheckpointError):
                    load_checkpoint(saved)
                for source, target in ((b, spare), (a, b), (spare, a)):
                    source.rename(target)
    verify_checkpoint(saved)


def test_a_file_of_another_step_is_noticed(saved: Path, tmp_path: Path) -> None:
    other = save_checkpoint(tmp_path, make_checkpoint(8), keep=3)
    for file in sorted(saved.iterdir()):
        original = file.read_bytes()
        shutil.copy(other / file.name, file)
        with pytest.raises(CheckpointError):
            load_checkpoint(saved)
        file.write_bytes(original)


def test_a_renamed_step_is_noticed(saved: Path) -> None:
    moved = saved.rename(saved.with_name("step-00000009"))
    with pytest.raises(CheckpointError, match="is of step 7, not of step 9"):
        load_checkpoint(moved)


def _extra_file(path: Path) -> None:
    (path / "extra").write_text("")


def _hidden_file(path: Path) -> None:
    (path / ".metadata").write_bytes(b"\x80\x04.")


def _extra_directory(path: Path) -> None:
    (path / "extra").mkdir()


def _symlink(path: Path) -> None:
    target = (path / "model.safetensors").rename(path.parent / "elsewhere")
    (path / "model.safetensors").symlink_to(target)


def _manifest_symlink(path: Path) -> None:
    target = (path / "MANIFEST.json").rename(path.parent / "elsewhere")
    (path / "MANIFEST.json").symlink_to(target)


def _pipe(path: Path) -> None:
    (path / "state.safetensors").unlink()
    os.mkfifo(path / "state.safetensors")


def _directory_for_file(path: Path) -> None:
    (path / "state.json").unlink()
    (path / "state.json").mkdir()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_extra_file, "extra: does not belong"),
        (_hidden_file, r"\.metadata: does not belong"),
        (_extra_directory, "extra: is not a regular file"),
        (_symlink, "model.safetensors: is not a regular file"),
        (_manifest_symlink, "MANIFEST.json: is not a regular file"),
        (_pipe, "state.safetensors: is not a regular file"),
        (_directory_for_file, "state.json: is not a regular file"),
    ],
)
def test_a_strange_directory_is_refused(damage: Callable[[Path], None], message: str, saved: Path) -> None:
    damage(saved)
    for check in (load_checkpoint, verify_checkpoint):
        with pytest.raises(CheckpointError, match=message):
            check(saved)


def test_what_is_no_directory_is_refused(saved: Path) -> None:
    link = saved.with_name("link")
    link.symlink_to(saved)
    for path, message in (
        (link, "symbolic link"),
        (saved / "state.json", "not a directory"),
        (saved / "nothing", "cannot be read: No such file"),
    ):
        with pytest.raises(CheckpointError, match=message):
            load_checkpoint(path)


def test_a_file_that_changes_into_a_link_while_reading_is_not_followed(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The directory listing is not trusted: the file itself is opened without following links."""
    real_open = os.open

    def swap_then_open(path: Path, flags: int, *rest: int) -> int:
        if Path(path).name == "state.json" and not Path(path).is_symlink():
            _ = Path(path).rename(saved.parent / "elsewhere")
            Path(path).symlink_to(saved.parent / "elsewhere")
        return real_open(path, flags, *rest)

    monkeypatch.setattr(os, "open", swap_then_open)
    with pytest.raises(CheckpointError, match=r"state\.json: cannot be read"):
        load_checkpoint(saved)


def test_a_read_error_names_the_file(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_open = os.open

    def failing_open(path: Path, flags: int, *rest: int) -> int:
        if Path(path).name == "state.safetensors":
            raise OSError(5, "Input/output error")
        return real_open(path, flags, *rest)

    monkeypatch.setattr(os, "open", failing_open)
    with pytest.raises(CheckpointError, match=r"state\.safetensors: cannot be read: Input/output error"):
        load_checkpoint(saved)


def test_the_next_older_one_is_taken_and_the_reason_told(saved: Path, tmp_path: Path) -> None:
    newest = save_checkpoint(tmp_path, make_checkpoint(8), keep=3)
    manifest = read_manifest_json(newest)
    manifest["step"] = 7
    write_manifest_json(newest, manifest)
    loaded = load_latest(tmp_path)
    assert loaded.path == saved
    assert same_checkpoint(loaded.checkpoint, make_checkpoint(7))
    assert [(path, "not of step 8" in reason) for path, reason in loaded.refused] == [(newest, True)]
