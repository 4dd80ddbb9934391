"""Kills, full disks and power cuts during a save: what was saved before is still there."""

from __future__ import annotations

import builtins
import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
from checkpoint_cases import make_checkpoint, same_checkpoint

from disttrain.checkpoint import load_latest, save_checkpoint
from disttrain.errors import CheckpointError

HERE = Path(__file__).parent
ROOT = HERE.parents[2]


@pytest.mark.parametrize("scenario", ["next", "keep one", "same step"])
def test_a_kill_after_any_change_loses_nothing(scenario: str, tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, str(HERE / "kill_during_save.py"), str(tmp_path), scenario],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{HERE}", "OMP_NUM_THREADS": "1"},
        timeout=100,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    # A directory, four files created and filled, two renames, and five deletions.
    assert int(result.stdout) >= 16


def test_everything_is_on_the_disk_before_it_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The power-cut model: what a rename makes visible is synced before, and the rename before anything is deleted."""
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    save_checkpoint(run_dir, make_checkpoint(1), keep=1)
    events: list[tuple[str, str]] = []
    real_fsync, real_rename = os.fsync, os.rename

    def fsync(descriptor: int) -> None:
        events.append(("fsync", os.path.relpath(os.readlink(f"/proc/self/fd/{descriptor}"), run_dir)))
        real_fsync(descriptor)

    def rename(source: Path, target: Path) -> None:
        events.append(("rename", os.path.relpath(target, run_dir)))
        if ".del-" in str(target):
            real_rename(source, target)
            return
        synced = {name for kind, name in events if kind == "fsync"}
        inside = [os.path.relpath(path, run_dir) for path in (Path(source), *Path(source).iterdir())]
        assert set(inside) <= synced
        assert events[-2] == ("fsync", inside[0]), "the directory itself is synced last"
        manifest = ("fsync", f"{inside[0]}/MANIFEST.json")
        assert events[-3] == manifest
        real_rename(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", rename)
    save_checkpoint(run_dir, make_checkpoint(2), keep=1)
    kinds = [(kind, name.split("-step")[0]) for kind, name in events[-4:]]
    assert kinds == [
        ("rename", "checkpoints/step-00000002"),
        ("fsync", "checkpoints"),
        ("rename", "checkpoints/.del"),
        ("fsync", "checkpoints"),
    ]


def test_a_new_checkpoints_directory_is_synced_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = []
    real_fsync = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        real_fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    save_checkpoint(tmp_path, make_checkpoint(1), keep=1)
    assert synced[0] == str(tmp_path)


class Failing:
    """Lets ``calls`` calls through and fails the next ``failures`` ones."""

    def __init__(self, function: Any, calls: int, failures: int, error: int) -> None:
        self.function, self.calls, self.failures, self.error = function, calls, failures, error

    def __call__(self, *arguments: Any, **more: Any) -> Any:
        self.calls -= 1
        if -self.failures <= self.calls < 0:
            raise OSError(self.error, os.strerror(self.error))
        return self.function(*arguments, **more)


@pytest.mark.parametrize(
    ("module", "name", "at_once"),
    [
        (os, "fsync", 1000),
        (os, "rename", 1000),
        (os, "mkdir", 1000),
        (builtins, "open", 1000),
        (os, "open", 1),  # only once: deleting a directory needs it too
    ],
)
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS])
def test_a_failing_call_anywhere_loses_nothing(
    module: Any, name: str, at_once: int, error: int, tmp_path: Path
) -> None:
    save_checkpoint(tmp_path, make_checkpoint(1), keep=1)
    save_checkpoint(tmp_path, make_checkpoint(2), keep=2)
    failures = 0
    for calls in range(100):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, name, Failing(getattr(module, name), calls, at_once, error))
            try:
                save_checkpoint(tmp_path, make_checkpoint(2, seed=calls), keep=2)
            except CheckpointError as raised:
                failure: CheckpointError | None = raised
            else:
                failure = None
        loaded = load_latest(tmp_path)
        assert loaded.checkpoint.step == 2
        assert loaded.refused == []
        if failure is None:
            break
        failures += 1
        assert str(tmp_path) in str(failure)
        assert not [path for path in loaded.path.parent.iterdir() if path.name.startswith(".tmp")]
    assert 1 <= failures < 50


@pytest.mark.parametrize("limit", [0, 1, 100, 250])
def test_a_write_that_stops_short_loses_nothing(limit: int, tmp_path: Path) -> None:
    """The kernel's own limit on the size of a file stands in for a disk that fills up in the middle of a write."""
    save_checkpoint(tmp_path, make_checkpoint(1), keep=1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(CheckpointError, match=r"step-00000002: cannot be saved.*older checkpoints are untouched"):
            save_checkpoint(tmp_path, make_checkpoint(2), keep=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000001"]
    assert same_checkpoint(load_latest(tmp_path).checkpoint, make_checkpoint(1))


def test_too_little_free_space_is_told_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    path = save_checkpoint(tmp_path, make_checkpoint(3), keep=1)
    size = sum(file.stat().st_size for file in path.iterdir() if file.name != "MANIFEST.json")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 0, int(1.5 * size) - 1))
    with pytest.raises(CheckpointError, match=r"checkpoint takes 0\.0 MB, and 0\.0 MB are free; 1\.5 times"):
        save_checkpoint(tmp_path, make_checkpoint(4), keep=1)
    assert load_latest(tmp_path).path == path
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 0, int(1.5 * size) + 1))
    save_checkpoint(tmp_path, make_checkpoint(4), keep=1)


def test_a_disk_that_returns_other_bytes_is_noticed_before_anything_is_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = save_checkpoint(tmp_path, make_checkpoint(1), keep=1)
    real_fsync = os.fsync

    def spoil(descriptor: int) -> None:
        real_fsync(descriptor)
        name = os.readlink(f"/proc/self/fd/{descriptor}")
        if name.endswith("model.safetensors"):
            with open(name, "r+b") as file:
                file.seek(-1, os.SEEK_END)
                file.write(b"\x7f")

    monkeypatch.setattr(os, "fsync", spoil)
    with pytest.raises(CheckpointError, match=r"model\.safetensors: is damaged"):
        save_checkpoint(tmp_path, make_checkpoint(2), keep=1)
    assert [path.name for path in old.parent.iterdir()] == [old.name]


def test_an_interrupt_leaves_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(descriptor: int) -> None:
        raise KeyboardInterrupt

    old = save_checkpoint(tmp_path, make_checkpoint(1), keep=1)
    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path, make_checkpoint(2), keep=1)
    assert [path.name for path in old.parent.iterdir()] == [old.name]


def test_places_where_nothing_can_be_saved(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"cannot be saved: .*No such file"):
        save_checkpoint(tmp_path / "missing", make_checkpoint(1), keep=1)
    (tmp_path / "checkpoints").write_text("a file")
    with pytest.raises(CheckpointError, match=r"cannot be saved: .*File exists"):
        save_checkpoint(tmp_path, make_checkpoint(1), keep=1)
