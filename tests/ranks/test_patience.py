"""A rank may take longer than a collective waits, and a rank that fails meanwhile is still everybody's error."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.harness import launch, needs

SCRIPT = """
import sys
import time
import disttrain
from disttrain.engine.patience import patiently
from disttrain.errors import InputError

limit, pause = (float(word) for word in sys.argv[1:])
with disttrain.init(device="cpu", timeout_seconds=limit) as engine:
    rank = engine.world.rank

    def work() -> int:
        time.sleep(pause * rank)
        return rank

    def fail() -> None:
        if rank == 1:
            raise InputError("not here")

    assert patiently(engine, work) == rank
    try:
        patiently(engine, fail)
        raise SystemExit("not noticed")
    except InputError as error:
        assert str(error) == "rank 1: not here", error
    engine.barrier("after all")
"""


@pytest.mark.parametrize(
    ("launcher", "pause"),
    [
        ("ranks", 0.0),
        pytest.param("ranks", 15.0, marks=pytest.mark.slow),
        pytest.param("horovodrun", 15.0, marks=[*needs("horovodrun"), pytest.mark.slow]),
    ],
)
def test_patiently(launcher: str, pause: float, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    result = launch(launcher, 2, [str(script), "10", str(pause)])
    assert result.code == 0, result.text
