"""disttrain.train on several ranks."""

from __future__ import annotations

from pathlib import Path

from tests.harness import launch

SCRIPT = Path(__file__).with_name("python_script.py")


def test_ranks_that_were_told_different_things_say_so_and_go_on(tmp_path: Path) -> None:
    launch("ranks", 2, [str(SCRIPT), str(tmp_path)]).check()
