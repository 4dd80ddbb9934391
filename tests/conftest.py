"""Fixtures shared by all tests: where the real data is, and a guard against what a test leaves behind."""

from __future__ import annotations

import gc
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.leaks import Before

# The same examples in every run, so that a change passes or fails by its own merits; --hypothesis-profile=explore looks
# for new ones. No deadline: other processes may hold the cores.
settings.register_profile("explore", deadline=None, max_examples=500)
settings.register_profile("fixed", deadline=None, derandomize=True)
settings.load_profile("fixed")

# Every run syncs what it writes, thousands of times in all; in memory that takes no time. Python's own TMPDIR, and pytest's
# --basetemp, choose another place. All tests together leave less than 1 GB, and pytest deletes what passed (pyproject.toml).
MEMORY = Path("/dev/shm")
if "TMPDIR" not in os.environ and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > 4 * 2**30:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder that holds ``fashion-mnist/`` and ``tinyshakespeare/``; named by ``DISTTRAIN_DATA``."""
    root = os.environ.get("DISTTRAIN_DATA")
    if not root:
        pytest.fail("set DISTTRAIN_DATA to the folder that holds fashion-mnist/ and tinyshakespeare/")
    path = Path(root).resolve()
    if not (path / "fashion-mnist").is_dir():
        pytest.fail(f"DISTTRAIN_DATA={root} holds no fashion-mnist/")
    return path


@pytest.fixture(autouse=True, scope="module")
def _settled() -> None:
    """A training collects garbage first; it need not look at torch and all tests each time, which takes 0.3 s."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _no_leaks() -> Iterator[None]:
    """Fail a test that leaves the environment changed, a child process running or a process group open."""
    before = Before()
    yield
    left = before.mend()
    assert not left, f"the test left behind: {', '.join(left)}"
