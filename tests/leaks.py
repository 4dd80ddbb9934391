"""What a test may leave behind: variables, processes, a process group of torch."""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

from tests import harness

GRACE_SECONDS = 30.0  # for processes that are on their way out
# What pytest, torch's compiler and scikit-learn write into the environment on their own.
NOT_OURS = (
    "PYTEST_CURRENT_TEST",
    "TORCHINDUCTOR_CACHE_DIR",
    "TRITON_CACHE_DIR",
    "KMP_DUPLICATE_LIB_OK",
    "KMP_INIT_AT_FORK",
)


class Before:
    """How things stood before a test."""

    def __init__(self) -> None:
        self.variables = variables()
        self.children = children()

    def mend(self) -> list[str]:
        """Put everything back; one line for each thing that had to be."""
        return [*self._variables(), *self._processes(), *process_group()]

    def _variables(self) -> list[str]:
        now = variables()
        changed = sorted(k for k in self.variables.keys() | now.keys() if self.variables.get(k) != now.get(k))
        for name in changed:
            if name in self.variables:
                os.environ[name] = self.variables[name]
            else:
                del os.environ[name]
        return [f"environment variable {name}" for name in changed]

    def _processes(self) -> list[str]:
        deadline = time.monotonic() + GRACE_SECONDS
        while (left := children() - self.children) and time.monotonic() < deadline:
            time.sleep(0.01)
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return [f"child process {pid}" for pid in sorted(left)]


def variables() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if k not in NOT_OURS}


def children() -> set[int]:
    """The living children of this process but for the warm one, which serves all tests."""
    found: set[int] | None = None
    while found is None:
        with suppress(
            FileNotFoundError, ProcessLookupError
        ):  # a thread ended meanwhile: its children are another's now
            tasks = list(Path("/proc/self/task").iterdir())
            found = {int(pid) for task in tasks for pid in (task / "children").read_text().split()}
    return {pid for pid in found - {server.pid for server in harness.WARM} if is_alive(pid)}


def is_alive(pid: int) -> bool:
    """Whether it runs: not one that has ended and was not waited for yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        return False


def process_group() -> list[str]:
    """Whether torch's default process group is there; it is not looked for where torch is not loaded."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return []
    distributed.destroy_process_group()
    return ["process group of torch.distributed"]
