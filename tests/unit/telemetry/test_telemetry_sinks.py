"""Fan-out, TensorBoard files that read back, and log files."""

from __future__ import annotations

import builtins
import io
import json
import logging
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from telemetry_records import EVALUATION, training

from disttrain.errors import InputError
from disttrain.telemetry import NullSink, Sink, Sinks, echo_warnings, open_log, run_sink, tensorboard_sink
from disttrain.telemetry.layout import layout


class Recorder:
    def __init__(self, name: str, events: list[Any], fails: bool = False) -> None:
        self.name, self.events, self.fails = name, events, fails

    def log(self, record: Mapping[str, object]) -> None:
        self.events.append((self.name, record))

    def close(self) -> None:
        self.events.append((self.name, "closed"))
        if self.fails:
            raise RuntimeError(self.name)


def test_fan_out() -> None:
    events: list[Any] = []
    sink: Sink = Sinks([Recorder("a", events), NullSink(), Sinks([Recorder("b", events)])])
    sink.log({"step": 1})
    sink.close()
    assert events == [("a", {"step": 1}), ("b", {"step": 1}), ("b", "closed"), ("a", "closed")]


def test_all_are_closed_though_one_fails() -> None:
    events: list[Any] = []
    with pytest.raises(RuntimeError, match="b"):
        Sinks([Recorder("a", events), Recorder("b", events, fails=True), Recorder("c", events)]).close()
    assert [name for name, _ in events] == ["c", "b", "a"]


def accumulator() -> Any:
    return pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason="needs TensorBoard")


def read_scalars(directory: Path) -> dict[str, list[tuple[int, float]]]:
    events = accumulator().EventAccumulator(str(directory))
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_tensorboard_files_read_back(tmp_path: Path) -> None:
    accumulator()
    sink = tensorboard_sink(tmp_path / "tensorboard")
    for record in (
        training(1),
        training(2, noise_scale=3, losses={"a": 0.5}),
        EVALUATION,
        {"event": "note", "step": 2, "x": 1},
        {"event": "batch", "step": 3, "global_batch": 128},
    ):
        sink.log(record)
    sink.close()
    sink.close()
    assert read_scalars(tmp_path / "tensorboard") == {
        "train/epoch": [(1, pytest.approx(0.01)), (2, pytest.approx(0.02))],
        "train/loss": [(1, 2.0), (2, 1.0)],
        "train/lr": [(1, pytest.approx(0.1)), (2, pytest.approx(0.1))],
        "train/grad_norm": [(1, 1.5), (2, 1.5)],
        "train/samples_per_second": [(1, pytest.approx(12_345.6)), (2, pytest.approx(12_345.6))],
        "train/noise_scale": [(2, 3.0)],
        "train/losses/a": [(2, 0.5)],
        "test/epoch": [(200, 2.0)],
        "test/loss": [(200, pytest.approx(0.25408))],
        "test/accuracy": [(200, pytest.approx(0.91234))],
        "train/global_batch": [(3, 128.0)],
    }


def test_the_layout_of_tensorboard_finds_the_scalars_of_a_run(tmp_path: Path) -> None:
    read = accumulator().EventAccumulator
    sink = tensorboard_sink(tmp_path)
    noise = {"noise_scale": 3.0, "noise_scale_low": 2.0, "noise_scale_high": 5.0}
    sink.log(training(1, **noise, trust_ratio={"w": 1.0}, update_to_weight={"w": 0.1}))
    sink.log(EVALUATION)
    sink.log({"event": "start", "step": 0, "global_batch": 64})
    sink.close()
    found = read(str(tmp_path))
    found.Reload()
    assert "custom_scalars__config__" in found.Tags()["tensors"]
    patterns = {name for charts in layout().values() for _, names in charts.values() for name in names}
    unseen = {name for name in patterns if not any(re.match(name, tag) for tag in found.Tags()["scalars"])}
    assert unseen == set()


def test_tensorboard_after_a_resume_shows_each_step_once(tmp_path: Path) -> None:
    accumulator()
    first = tensorboard_sink(tmp_path)
    for step in range(1, 8):
        first.log(training(step))
    first.close()
    second = tensorboard_sink(tmp_path, resumed_at=4)
    for step in range(5, 10):
        second.log(training(step, loss=0.5))
    second.close()
    losses = read_scalars(tmp_path)["train/loss"]
    assert [step for step, _ in losses] == list(range(1, 10))
    assert losses[4:] == [(step, 0.5) for step in range(5, 10)]


def test_everything_a_run_reports_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    accumulator()
    sink = run_sink(tmp_path, total_samples=1024, others=[tensorboard_sink(tmp_path / "tensorboard")])
    sink.log(training(1))
    sink.close()
    for quiet in (False, True):
        sink = run_sink(tmp_path, total_samples=1024, quiet=quiet)
        sink.log(training(2 + quiet))
        sink.close()
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [{**json.loads(line), "time": ""} for line in lines] == [training(step, time="") for step in (1, 2, 3)]
    assert read_scalars(tmp_path / "tensorboard")["train/loss"] == [(1, 2.0)]
    assert [line.split()[:2] for line in capsys.readouterr().out.splitlines()] == [["step", "1"], ["step", "2"]]


def test_without_tensorboard_one_line_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real_import = builtins.__import__

    def no_tensorboard(name: str, *rest: Any) -> Any:
        if name == "torch.utils.tensorboard":
            raise ModuleNotFoundError("No module named 'tensorboard'")
        return real_import(name, *rest)

    monkeypatch.setattr(builtins, "__import__", no_tensorboard)
    with caplog.at_level(logging.INFO, "disttrain"):
        sink = tensorboard_sink(tmp_path / "tensorboard")
    assert isinstance(sink, NullSink)
    sink.log(training(1))
    sink.close()
    assert len(caplog.records) == 1
    assert "TensorBoard is not installed" in caplog.text
    assert "pip install 'disttrain[tensorboard]'" in caplog.text
    assert not (tmp_path / "tensorboard").exists()


logger = logging.getLogger("disttrain")


def test_log_files(tmp_path: Path) -> None:
    level, handlers = logger.level, list(logger.handlers)
    close = open_log(tmp_path, 3)
    logger.debug("not kept")
    logger.info("starting %d", 1)
    logging.getLogger("disttrain.training").warning("é")
    close()
    logger.warning("after the end")
    close = open_log(tmp_path, 3)
    logger.error("resumed")
    close()
    lines = (tmp_path / "log" / "rank-3.log").read_text(encoding="utf-8").splitlines()
    when = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
    expected = ["rank 3 INFO starting 1", "rank 3 WARNING é", "rank 3 ERROR resumed"]
    assert len(lines) == 3
    assert all(re.fullmatch(f"{when} {text}", line) for line, text in zip(lines, expected, strict=True))
    assert (logger.level, logger.handlers) == (level, handlers)


def test_a_log_that_cannot_be_opened_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("a file")
    with pytest.raises(InputError, match=r"rank-0\.log: cannot be opened for writing: File exists"):
        open_log(tmp_path, 0)


def test_warnings_are_echoed_to_the_standard_error_of_the_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    stream, other = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    end = echo_warnings()
    logger.info("not shown")
    logger.warning("shown")
    monkeypatch.setattr(sys, "stderr", other)
    logger.error("here")
    other.close()
    logger.error("nobody reads this")
    end()
    logger.handlers.clear()
    assert stream.getvalue() == "WARNING: shown\n"
