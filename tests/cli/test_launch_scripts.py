"""What the start scripts add to a command, and when they start it again."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.harness import ROOT

COMMON = f"set -euo pipefail; source {ROOT}/launch/common.sh; OMP_NUM_THREADS=1; "


def shell(script: str, **env: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if k not in ("RESUME", "PROGRAM", "MAX_RESTARTS")}
    return subprocess.run(["bash", "-c", COMMON + script], env=clean | env, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("restarts", "words", "env", "expected"),
    [
        ("yes", "train a.yaml", {}, "train a.yaml --resume auto"),
        ("yes", "", {}, "--resume auto"),
        ("no", "train a.yaml", {}, "train a.yaml"),
        ("yes", "train a.yaml", {"RESUME": ""}, "train a.yaml"),
        ("yes", "train --resume a.yaml", {}, "train --resume a.yaml"),
        ("yes", "train --resume=auto", {}, "train --resume=auto"),
        ("yes", "evaluate runs/a", {}, "evaluate runs/a"),
        ("yes", "train a.yaml", {"PROGRAM": "loop.py"}, "train a.yaml"),
    ],
)
def test_training_that_may_be_restarted_resumes(restarts: str, words: str, env: dict[str, str], expected: str) -> None:
    done = shell(f'go_on {restarts} {words}; echo "${{arguments[*]}}"', **env)
    assert (done.returncode, done.stdout.strip()) == (0, expected), done.stderr


# What each start exits with, how many restarts are allowed, and how often it was then started.
@pytest.mark.parametrize(
    ("codes", "restarts", "starts", "code"),
    [
        ("0", 3, 1, 0),
        ("1 0", 3, 2, 0),
        ("137 4 0", 3, 3, 0),
        ("4 4 4 4", 2, 3, 4),
        ("4 0", 0, 1, 4),
        ("2 0", 3, 1, 2),
        ("3 0", 3, 1, 3),
        ("75 0", 3, 1, 75),
    ],
)
def test_failures_are_started_again(codes: str, restarts: int, starts: int, code: int, tmp_path: Path) -> None:
    job = tmp_path / "job"
    job.write_text(
        f"#!/bin/bash\ncodes=({codes}); n=$(cat {tmp_path}/n 2>/dev/null || echo 0)\n"
        f'echo $((n + 1)) >{tmp_path}/n; exit "${{codes[$n]}}"\n'
    )
    job.chmod(0o755)
    done = shell(f"run_again {job}", MAX_RESTARTS=str(restarts))
    assert (done.returncode, int((tmp_path / "n").read_text())) == (code, starts), done.stderr


def test_a_signal_is_handed_on_and_ends_it(tmp_path: Path) -> None:
    job = tmp_path / "job"
    job.write_text(f"#!/bin/bash\ntrap 'echo saved; exit 1' TERM\necho >>{tmp_path}/starts\nsleep 30 & wait $!\n")
    job.chmod(0o755)
    process = subprocess.Popen(
        ["bash", "-c", COMMON + f"run_again {job}"],
        env=os.environ | {"MAX_RESTARTS": "3"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 30
    while not (tmp_path / "starts").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 1
    os.killpg(process.pid, signal.SIGKILL)  # the job's own sleep
    assert process.communicate()[0] == "saved\n"
    assert (tmp_path / "starts").read_text().count("\n") == 1
