"""A run directory belongs to one job at a time."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from disttrain.checkpoint import run_lock
from disttrain.errors import InputError

ROOT = Path(__file__).parents[3]

HOLD = """
import os, sys, time
from pathlib import Path
from disttrain.checkpoint.lock import run_lock
with run_lock(Path(sys.argv[1])):
    child = os.fork() if sys.argv[2] == "fork" else 1
    if child != 0:
        print(child, flush=True)
    time.sleep(600)
"""


def hold(run_dir: Path, kind: str) -> tuple[subprocess.Popen[str], int]:
    """A process that holds the lock, and the id of its forked child if ``kind`` is fork."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(run_dir), kind],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None
    return process, int(process.stdout.readline())


def test_a_second_job_is_refused_and_told_who_holds_it(tmp_path: Path) -> None:
    process, _ = hold(tmp_path, "alone")
    try:
        message = f"process {process.pid} on host {socket.gethostname()} is using .*--run-dir"
        with pytest.raises(InputError, match=message) as raised, run_lock(tmp_path):
            pytest.fail("two jobs hold the lock")
        assert raised.value.exit_code == 2
        assert process.poll() is None, "it was waited for"
    finally:
        process.kill()
        process.communicate()
    with run_lock(tmp_path):
        pass


def test_a_forked_worker_does_not_keep_the_lock_of_a_killed_job(tmp_path: Path) -> None:
    process, child = hold(tmp_path, "fork")
    try:
        process.kill()
        process.wait()
        os.kill(child, 0)
        with run_lock(tmp_path):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        process.communicate()


def test_leaving_a_fork_does_not_unlock_the_parent(tmp_path: Path) -> None:
    with run_lock(tmp_path):
        process = subprocess.run(
            [sys.executable, "-c", FORK_AND_LEAVE, str(tmp_path / "inner")],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
    assert process.returncode == 0, process.stderr


FORK_AND_LEAVE = """
import os, sys
from pathlib import Path
from disttrain.checkpoint.lock import run_lock
from disttrain.errors import InputError
run_dir = Path(sys.argv[1])
run_dir.mkdir()
child = None
with run_lock(run_dir):
    child = os.fork()
    if child != 0:
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        try:
            with run_lock(run_dir):
                sys.exit("the child took the lock away")
        except InputError:
            pass
"""


def test_it_is_free_again_afterwards_also_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError), run_lock(tmp_path):
        raise KeyError
    descriptors = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with run_lock(tmp_path), pytest.raises(InputError), run_lock(tmp_path):
            pass
    assert len(os.listdir("/proc/self/fd")) == descriptors


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": "x"}', "\x00" * 2000, '{"pid": 1, "host": "' + "x" * 5000])
def test_a_lock_file_with_any_content_will_do(content: str, tmp_path: Path) -> None:
    with run_lock(tmp_path):
        (tmp_path / ".lock").write_text(content)
        with pytest.raises(InputError, match="another process is using"), run_lock(tmp_path):
            pass
    with run_lock(tmp_path):
        assert str(os.getpid()) in (tmp_path / ".lock").read_text()


def test_where_no_lock_can_be_made(tmp_path: Path) -> None:
    with (
        pytest.raises(InputError, match=r"\.lock: cannot be created: No such file"),
        run_lock(tmp_path / "none"),
    ):
        pass
    (tmp_path / ".lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=r"\.lock: cannot be created"), run_lock(tmp_path):
        pass
    assert not (tmp_path / "elsewhere").exists()


def test_a_filesystem_without_locks_is_told_and_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def unsupported(descriptor: int, operation: int) -> None:
        if operation & fcntl.LOCK_EX:
            raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with caplog.at_level(logging.WARNING, "disttrain"), run_lock(tmp_path):
        pass
    assert "nothing stops a second job" in caplog.text
