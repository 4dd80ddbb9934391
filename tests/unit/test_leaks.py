"""The guard after every test sees what is left behind, and puts it back."""

from __future__ import annotations

import os
import subprocess
import threading

import pytest
import torch.distributed as dist

from tests.leaks import Before, children


def test_nothing_left_is_nothing_found() -> None:
    before = Before()
    subprocess.run(["true"], check=True)
    assert before.mend() == []


def test_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTTRAIN_A", "1")
    before = Before()
    os.environ["DISTTRAIN_A"] = "2"
    os.environ["DISTTRAIN_B"] = "1"
    assert before.mend() == ["environment variable DISTTRAIN_A", "environment variable DISTTRAIN_B"]
    assert os.environ["DISTTRAIN_A"] == "1"
    assert "DISTTRAIN_B" not in os.environ


def test_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.leaks.GRACE_SECONDS", 0.1)
    before = Before()
    with subprocess.Popen(["sleep", "600"]) as process:
        assert process.pid in children()
        assert before.mend() == [f"child process {process.pid}"]
    assert process.returncode < 0
    assert before.mend() == []


def test_a_process_that_is_about_to_end_is_waited_for() -> None:
    before = Before()
    with subprocess.Popen(["sleep", "0.3"]):
        assert before.mend() == []


def test_process_groups() -> None:
    before = Before()
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    assert before.mend() == ["process group of torch.distributed"]
    assert not dist.is_initialized()


def test_threads_that_end_meanwhile_are_no_error() -> None:
    over = threading.Event()

    def churn() -> None:
        while not over.is_set():
            threading.Thread(target=int).start()

    churning = threading.Thread(target=churn)
    churning.start()
    try:
        seen = [children() for _ in range(300)]
    finally:
        over.set()
        churning.join()
    assert all(found == seen[0] for found in seen)
