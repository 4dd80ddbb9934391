"""What people see: plain lines, the live bar, the summary, and nothing worse than silence when a pipe closes."""

from __future__ import annotations

import io
import itertools
import logging
import math
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console
from telemetry_records import EVALUATION, SUMMARY, training

from disttrain.telemetry import LiveProgress, PlainProgress, print_summary, progress_sink
from disttrain.telemetry.lines import describe, duration, number, percent, rate
from disttrain.telemetry.outlet import Outlet
from disttrain.telemetry.summary import summary_lines

ROOT = Path(__file__).parents[3]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_plain_lines() -> None:
    stream = io.StringIO()
    sink = progress_sink(total_samples=153_600, stream=stream)
    assert isinstance(sink, PlainProgress)
    records: list[dict[str, Any]] = [
        training(2),
        training(200, noise_scale=812.5, clipped=True),
        training(300, loss=math.nan, lr=1e-5, grad_norm=math.inf, samples_per_second=0.0, epoch=3),
        EVALUATION,
        {"event": "checkpoint", "step": 200, "path": "runs/1/checkpoints/step-00000200", "seconds": 0.25},
        {"event": "warning", "message": "checkpoint passed over: x"},
        {"event": "samples", "step": 200, "ids": [3, 1, 2]},
        {"event": "numerics", "step": 200, "layers": {"0.weight": {"norm": 1.0}}},
    ]
    for record in records:
        sink.log(record)
    sink.close()
    assert stream.getvalue() == (
        "step      2  epoch  0.02  samples   1024  loss    1.0000  lr    0.1000  grad_norm    1.5000"
        "    12,346 samples/s  eta 0:00:12\n"
        "step    200  epoch  2.00  samples 102400  loss    0.0100  lr    0.1000  grad_norm    1.5000"
        "  noise_scale 810    12,346 samples/s  eta 4.15 s\n"
        "step    300  epoch     3  samples 153600  loss       nan  lr 1.000e-05  grad_norm       inf"
        "         0 samples/s\n"
        "evaluation on test  step 200  epoch 2  loss 0.2541  accuracy 91.23 %\n"
        "checkpoint  step 200  path runs/1/checkpoints/step-00000200  seconds 0.25 s\n"
        "warning: checkpoint passed over: x\n"
    )


def test_a_noise_scale_is_said_as_far_as_it_is_known() -> None:
    def said(value: float, low: float, high: float | None) -> str:
        return describe({"noise_scale": value, "noise_scale_low": low, "noise_scale_high": high}, 10)

    assert said(4536.2, 3402.0, 7011.0) == "noise_scale 4,500 (3,400 to 7,000)"
    assert said(4.126, 0.3333, 12.6) == "noise_scale 4.1 (0.33 to 13)"
    assert said(630.9, 283.4, None) == "noise_scale at least 280"
    assert said(630.9, 0.0, None) == "noise_scale not known"
    assert (
        describe({"event": "noise_scale", "message": "noise scale 5: so", "step": 2}, 10) == "noise scale 5: so  step 2"
    )


def test_lines_of_incomplete_records() -> None:
    assert describe({}, 10) == ""
    assert describe({"step": 3}, 10) == "step      3"
    assert describe({"split": "validation", "perplexity": 12.5}, 10) == "evaluation on validation  perplexity 12.5000"
    assert describe({"event": "start"}, 10) == "start"
    assert describe({"samples": 20, "samples_per_second": 5.0}, 10) == "samples 20         5 samples/s  eta 0:00:00"


def test_numbers() -> None:
    assert [number(x) for x in (0, 7, 0.0, 0.5, -0.001, 9999.0, 1e4, 1e-4, math.nan, -math.inf)] == [
        *("0", "7", "0", "0.5000", "-0.0010", "9999.0000", "1.000e+04", "1.000e-04", "nan", "-inf")
    ]
    assert [rate(x) for x in (0.0, 0.1234, 12.34, 99.9, 100.0, 1234567.8)] == [
        *("0", "0.123", "12.3", "99.9", "100", "1,234,568")
    ]
    assert [duration(x) for x in (0, 1.234, 59.6, 3600, 90_061, math.inf)] == [
        *("0:00:00", "1.23 s", "0:01:00", "1:00:00", "1 day, 1:01:01", "inf s")
    ]
    assert percent(1) == "100.00 %"


def test_summary() -> None:
    assert summary_lines(SUMMARY) == [
        "summary",
        "  test accuracy       91.23 %",
        "  time                0:01:05",
        "  samples/s           24,691",
        "  samples/s per rank  12,346, 12,346",
        "  run directory       runs/[bold]2026",
    ]


def test_summary_of_many_ranks() -> None:
    lines = summary_lines({"samples_per_second_per_rank": [1000.0 + i for i in range(512)]})
    assert lines == ["summary", "  samples/s per rank  1,000 to 1,511 (512 values)"]
    assert summary_lines({}) == ["summary"]
    assert summary_lines({"noise_scale": "noise scale 5: so"}) == ["summary", "  noise scale  5: so"]


def test_print_summary(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    summary = {"accuracy": 0.5, "samples_per_second_per_rank": 1234.5, "run_dir": "runs/[bold]x" + 100 * "z"}
    print_summary(summary)
    assert capsys.readouterr().out == (
        "summary\n"
        "  test accuracy       50.00 %\n"
        "  samples/s per rank  1,234\n"
        f"  run directory       runs/[bold]x{100 * 'z'}\n"
    )
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "60")
    terminal = Terminal()
    print_summary(summary, terminal)
    text = terminal.getvalue()
    assert "runs/[bold]xzzz" in text
    assert text.count("z") == 100
    print_summary(summary, Broken(0))


def test_live_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("disttrain.telemetry.live.SECONDS_BETWEEN_DRAWINGS", 0.0)
    stream = Terminal()
    console = Console(file=stream, force_terminal=True, width=80, color_system=None)
    sink = LiveProgress(console, total_samples=153_600)
    for record in (
        training(150),
        EVALUATION,
        {"event": "[red]note", "text": "x"},
        {"event": "samples", "ids": [77]},
        {"event": "numerics", "step": 77, "layers": {}},
        training(300),
    ):
        sink.log(record)
    sink.close()
    sink.close()
    text = stream.getvalue()
    assert "50% step 150 epoch 1.50 loss 0.0133 lr 0.1000 12,346/s 6.22 s left" in text
    assert "100% step 300" in text
    assert "evaluation on test  step 200  epoch 2  loss 0.2541  accuracy 91.23 %" in text
    assert "[red]note  text x" in text
    assert "77" not in text
    assert "\x1b[?25h" in text, "the cursor is shown again"


def test_live_bar_fits_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("disttrain.telemetry.live.SECONDS_BETWEEN_DRAWINGS", 0.0)
    stream = Terminal()
    sink = LiveProgress(Console(file=stream, force_terminal=True, width=40, color_system=None), total_samples=153_600)
    sink.log(training(150))
    sink.close()
    assert all(len(line) <= 40 for line in stream.getvalue().split("\r")[-1].replace("\x1b[2K", "").split("\n"))


def test_the_bar_is_drawn_at_most_ten_times_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count()  # in hundredths of a second, one for each record
    monkeypatch.setattr("disttrain.telemetry.live.time", SimpleNamespace(monotonic=lambda: next(clock) / 100))
    stream = Terminal()
    sink = LiveProgress(Console(file=stream, force_terminal=True, width=120, color_system=None), total_samples=10**6)
    for step in range(1, 1001):
        sink.log(training(step))
    drawn = stream.getvalue().count(" step ")
    sink.close()
    assert 90 <= drawn <= 101


def test_a_terminal_gets_the_bar_and_a_dumb_one_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    sink = progress_sink(10, Terminal())
    assert isinstance(sink, LiveProgress)
    sink.close()
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(progress_sink(10, Terminal()), PlainProgress)
    assert isinstance(progress_sink(10, io.StringIO()), PlainProgress)


class Broken(Terminal):
    """Takes ``writes`` writes, then its reader is gone."""

    def __init__(self, writes: int) -> None:
        super().__init__()
        self.writes = writes

    def write(self, text: str) -> int:
        self.writes -= 1
        if self.writes < 0:
            raise BrokenPipeError(32, "Broken pipe")
        return super().write(text)


@pytest.mark.parametrize("writes", range(8))
@pytest.mark.parametrize("live", [False, True])
def test_a_reader_that_leaves_ends_the_printing_only(
    live: bool, writes: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("disttrain.telemetry.live.SECONDS_BETWEEN_DRAWINGS", 0.0)
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm" if live else "dumb")
    with caplog.at_level(logging.WARNING, "disttrain"):
        sink = progress_sink(153_600, Broken(writes))
        for step in range(1, 20):
            sink.log(training(step))
        sink.log(EVALUATION)
        sink.close()
    assert caplog.text.count("nothing more is printed, the run goes on") == 1


def test_text_that_the_terminal_cannot_show_is_replaced() -> None:
    raw = io.BytesIO()
    outlet = Outlet(io.TextIOWrapper(raw, encoding="ascii"))
    assert outlet.encoding == "ascii"
    outlet.write("caf\u00e9 \u2028\n")
    outlet.flush()
    assert raw.getvalue() == b"caf? ?\n"


JOB = """
import sys
sys.path.insert(0, sys.argv[1])
from telemetry_records import EVALUATION, SUMMARY, training
from disttrain.telemetry import echo_warnings, progress_sink
end = echo_warnings()
sink = progress_sink(10_000_000)
for step in range(1, 5000):
    sink.log(training(step))
sink.log(EVALUATION)
sink.log(SUMMARY)
sink.close()
end()
print("this goes nowhere")
"""


def test_a_closed_pipe_does_not_hurt_the_job() -> None:
    """Like ``disttrain train | head -1``; the exit code must be that of the job."""
    job = subprocess.Popen(
        [sys.executable, "-c", JOB, str(Path(__file__).parent)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
    )
    assert job.stdout is not None
    assert job.stderr is not None
    assert job.stdout.readline().startswith("step      1")
    job.stdout.close()
    errors = job.stderr.read()
    job.stderr.close()
    assert job.wait(timeout=300) == 0
    assert errors.splitlines() == [
        "WARNING: standard output cannot be written ([Errno 32] Broken pipe); nothing more is printed, the run goes on"
    ]


@pytest.mark.parametrize("redirect", [">/dev/full", ">&-"])
def test_a_full_disk_or_no_output_at_all_does_not_hurt_the_job(redirect: str) -> None:
    job = subprocess.run(
        ["bash", "-c", f'exec "$0" -c "$1" "$2" {redirect}', sys.executable, JOB, str(Path(__file__).parent)],
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
        timeout=300,
        check=False,
    )
    assert job.returncode == 0, job.stderr
    assert "Traceback" not in job.stderr
