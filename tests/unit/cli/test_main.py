"""How the command line ends."""

from __future__ import annotations

import sys

import pytest

from disttrain.cli import main as command_line


def test_control_c_is_no_success(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("disttrain.config.recipe_schema", interrupted)
    monkeypatch.setattr(sys, "argv", ["disttrain", "schema"])
    with pytest.raises(SystemExit) as ended:
        command_line.main()
    assert ended.value.code == 130
