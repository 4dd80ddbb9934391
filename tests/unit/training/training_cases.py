"""What the tests of training share."""

from __future__ import annotations

from typing import Protocol

from disttrain.training.state import Run


class MakeRun(Protocol):
    """The fixture ``make_run``: the default recipe with these overrides, in one process and in memory."""

    def __call__(self, *overrides: str) -> Run: ...
