"""``metrics.jsonl``: strict lines, also after a kill, and cut back on resume."""

from __future__ import annotations

import json
import logging
import math
import os
import stat
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
from telemetry_records import EVALUATION, training

from disttrain.errors import DisttrainError
from disttrain.telemetry import JsonlSink, truncate_after
from disttrain.telemetry.jsonl import to_line


def strict(line: str) -> Any:
    return json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def untimed(path: Path) -> list[Any]:
    """The records of the file without their times."""
    return [{k: v for k, v in strict(line).items() if k != "time"} for line in path.read_text().splitlines()]


def write(path: Path, *records: dict[str, Any]) -> None:
    sink = JsonlSink(path)
    for record in records:
        sink.log(record)
    sink.close()


def steps(path: Path) -> list[int]:
    return [strict(line)["step"] for line in path.read_text().splitlines()]


def test_each_record_is_a_line_that_is_there_at_once(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    sink = JsonlSink(path)
    records = [
        training(1),
        EVALUATION,
        {"event": "note", "text": "two\nlines \u2028 é", "list": [1, (2.5, None, True)]},
    ]
    for count, record in enumerate(records, 1):
        sink.log(record)
        lines = path.read_text().split("\n")
        assert len(lines) == count + 1
        assert lines[-1] == ""
    sink.close()
    sink.close()
    assert untimed(path) == [training(1), EVALUATION, {**records[2], "list": [1, [2.5, None, True]]}]


def test_numbers_read_back_exactly() -> None:
    for value in (0.1, 1 / 3, 5e-324, 1.7976931348623157e308, -0.0, 2**70, 1.0):
        back = strict(to_line({"x": value}))["x"]
        assert (type(back), repr(back)) == (type(value), repr(value))


def test_numbers_that_are_not_finite() -> None:
    record = {"loss": math.nan, "lr": math.inf, "x": -math.inf, "list": [math.nan, 1.0], "dict": {"y": math.inf}}
    assert strict(to_line(record)) == {
        "loss": None,
        "loss_nonfinite": "nan",
        "lr": None,
        "lr_nonfinite": "inf",
        "x": None,
        "x_nonfinite": "-inf",
        "list": [None, 1.0],
        "dict": {"y": None, "y_nonfinite": "inf"},
    }


def test_what_is_no_plain_value_is_an_error() -> None:
    with pytest.raises(TypeError, match="not JSON serializable"):
        to_line({"x": object()})


def test_a_second_sink_appends_and_a_torn_line_spoils_nothing(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, training(1))
    with open(path, "a") as file:
        file.write('{"step": 2, "lo')
    write(path, training(3))
    assert truncate_after(path, 3) == (2, 0, 1)
    assert untimed(path) == [training(1), training(3)]


def test_each_line_has_its_time_and_no_line_is_earlier_than_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "metrics.jsonl"
    clock = iter([1_800_000_000.0, 1_800_000_000.1239, 1_799_999_990.0, 1_800_000_001.0])
    monkeypatch.setattr("time.time", lambda: next(clock))  # set back by 10 s in between
    write(path, *(training(step) for step in range(1, 5)))
    times = [strict(line)["time"] for line in path.read_text().splitlines()]
    assert times == [f"2027-01-15T08:00:0{s}Z" for s in ("0.000", "0.123", "0.123", "1.000")]


def test_damaged_lines_that_are_dropped_are_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, training(1), training(2))
    with caplog.at_level(logging.WARNING, "disttrain"):
        truncate_after(path, 1)
        assert caplog.text == ""
        with open(path, "a") as file:
            file.write('[1]\n{"step": 2, "lo')
        truncate_after(path, 1)
    assert f"{path}: 2 lines are no records and dropped" in caplog.text


def test_truncate_at_every_byte(tmp_path: Path) -> None:
    """Whatever a kill left of the file: all whole lines up to the step stay, byte for byte."""
    path = tmp_path / "metrics.jsonl"
    write(path, training(1), training(2), EVALUATION | {"step": 2}, {"event": "note"}, training(3), training(4))
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        result = truncate_after(path, 3)
        complete = sum(end - 1 <= length for end in accumulate(map(len, lines)))  # perhaps without its line break
        cut = length > sum(map(len, lines[:complete]))
        kept = lines[: min(complete, 5)]
        assert result == (len(kept), complete - len(kept), cut)
        assert path.read_bytes().splitlines() == [line.rstrip() for line in kept]
    assert truncate_after(path, 3) == (5, 0, 0)
    assert list(tmp_path.iterdir()) == [path]


def test_truncate_counts(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, *(training(step) for step in range(1, 11)))
    with open(path, "ab") as file:
        file.write(b"\x00\x00\x00\n[1, 2]\nnull\n" + b'{"step": 11, "x')
    assert truncate_after(path, 7) == (7, 3, 4)
    assert steps(path) == list(range(1, 8))
    assert truncate_after(path, 0) == (0, 7, 0)
    assert path.read_bytes() == b""


def test_truncate_leaves_an_untouched_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert truncate_after(path, 5) == (0, 0, 0)
    assert not path.exists()
    write(path, training(1))
    path.chmod(0o640)
    inode = path.stat().st_ino
    assert truncate_after(path, 1) == (1, 0, 0)
    assert path.stat().st_ino == inode
    assert truncate_after(path, 0) == (0, 1, 0)
    assert path.stat().st_ino != inode
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_truncate_is_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "metrics.jsonl"
    write(path, training(1), training(2))
    before = path.read_bytes()
    for name in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, fail)
            with pytest.raises(DisttrainError, match=r"metrics\.jsonl: cannot be cut back to step 1: No space"):
                truncate_after(path, 1)
        assert path.read_bytes() == before
        assert list(tmp_path.iterdir()) == [path]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(DisttrainError, match=r"missing/metrics\.jsonl: cannot be opened"):
        JsonlSink(tmp_path / "missing" / "metrics.jsonl")
    sink = JsonlSink(Path("/dev/full"))
    with pytest.raises(DisttrainError, match="/dev/full: cannot be written: No space left"):
        sink.log(training(1))
    sink.close()
