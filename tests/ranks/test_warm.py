"""A forked program is to its launcher and its test what ``python`` would be."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.harness import Job, finish, launch, start, wait_until

SAY = "import os, sys\nprint(__name__, sys.argv[1:], os.getcwd(), os.environ.get('RANK'), os.environ.get('A'), flush=True)\n"


def program(folder: Path, code: str) -> str:
    path = folder / "program.py"
    path.write_text(SAY + code)
    return str(path)


@pytest.mark.parametrize(
    ("code", "expected", "error"),
    [
        ("", 0, ""),
        ("sys.exit(7)", 7, ""),
        ("sys.exit('a message')", 1, "a message\n"),
        ("raise ValueError('planted')", 1, "ValueError: planted\n"),
        ("os.abort()", -signal.SIGABRT, ""),
        ("os.kill(os.getpid(), 9)", -signal.SIGKILL, ""),
        ("import atexit; atexit.register(os._exit, 5)", 5, ""),
        ("import threading; threading.Timer(0.2, lambda: os._exit(6)).start()", 6, ""),
    ],
)
@pytest.mark.parametrize("fresh", [False, True])
def test_it_ends_alike(code: str, expected: int, error: str, fresh: bool, tmp_path: Path) -> None:
    result = launch("none", 1, [program(tmp_path, code), "x", "y z"], env={"A": "\u00e9"}, cwd=tmp_path, fresh=fresh)
    assert result.out == f"__main__ ['x', 'y z'] {tmp_path} None \u00e9\n"
    assert result.code == expected
    assert result.err.endswith(error)


def test_ranks_know_each_other_and_the_first_failure_counts(tmp_path: Path) -> None:
    result = launch("ranks", 3, [program(tmp_path, "sys.exit(4 if os.environ['RANK'] == '1' else 0)")])
    assert sorted(line.split()[3] for line in result.out.splitlines()) == ["0", "1", "2"]
    assert result.code == 4


def waiting(folder: Path) -> Job:
    """Two ranks that say when a signal comes."""
    code = """
import signal, time
signal.signal(signal.SIGUSR1, lambda number, _: sys.exit(9))
open(f"{sys.argv[1]}/{os.getpid()}", "w").close()
time.sleep(600)
"""
    (folder / "ids").mkdir()
    job = start("ranks", 2, [program(folder, code), str(folder / "ids")])
    wait_until(lambda: len(list((folder / "ids").iterdir())) == 2, "the ranks do not start")
    return job


def test_a_signal_reaches_every_rank(tmp_path: Path) -> None:
    job = waiting(tmp_path)
    job.send_signal(signal.SIGUSR1)
    assert finish(job).code == 9


@pytest.mark.parametrize("how", ["kill", "kill_all"])
def test_ranks_end_with_what_stands_for_them(how: str, tmp_path: Path) -> None:
    job = waiting(tmp_path)
    getattr(job, how)()
    finish(job)  # at the end of its output, which the ranks hold too
    for path in (tmp_path / "ids").iterdir():
        wait_until(lambda pid=path.name: not os.path.exists(f"/proc/{pid}"), "a rank lives on")
