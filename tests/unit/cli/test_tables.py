"""Tables show text as it is, brackets included."""

from __future__ import annotations

from pathlib import Path

import pytest

from disttrain.cli import doctor, show


def test_doctor_names_extras(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(doctor, "findings", lambda: iter([("mpi4py", "absent", "pip install 'disttrain[mpi]'")]))
    doctor.doctor()
    assert "pip install 'disttrain[mpi]'" in capsys.readouterr().out


def test_show_names_what_stands_in_brackets(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("disttrain.plan.explain.explain", lambda *_: [("warmup", "[0, 1]", "why [bold]not[/bold]")])
    show.show()
    out = capsys.readouterr().out
    assert "[0, 1]" in out
    assert "why [bold]not[/bold]" in out
