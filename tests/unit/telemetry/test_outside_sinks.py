"""Sinks that are not ours: what they raise, and how slow they are, is no affair of the training."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from telemetry_records import EVALUATION, training

from disttrain.errors import InputError
from disttrain.telemetry import Sink
from disttrain.telemetry import outside as outside_module
from disttrain.telemetry.make import make_sink
from disttrain.telemetry.outside import OutsideSink
from disttrain.telemetry.scalars import scalars

TAKEN: list[Any] = []
NOT_A_SINK = 3


class Taking:
    """Keeps what it is given, and where."""

    def __init__(self, run_dir: Path, more: int = 0) -> None:
        TAKEN.append((run_dir.name, more, threading.get_ident()))

    def log(self, record: Mapping[str, object]) -> None:
        TAKEN.append((record["step"], threading.get_ident()))

    def close(self) -> None:
        TAKEN.append(("closed", threading.get_ident()))


class LogOnly:
    def log(self, record: Mapping[str, object]) -> None: ...


class Faulty:
    """Fails, or hangs, at a step."""

    def __init__(self, hang: threading.Event | None = None) -> None:
        self.hang = hang
        self.steps: list[object] = []
        self.closed = 0

    def log(self, record: Mapping[str, object]) -> None:
        self.steps.append(record["step"])
        if record["step"] == 2:
            if self.hang is None:
                raise ConnectionError("the network\nis down")
            self.hang.wait(20)

    def close(self) -> None:
        self.closed += 1


def made(name: str, **arguments: object) -> Sink:
    return make_sink(name, arguments, run_dir=Path("runs/a"), recipe={"name": "a"}, resumed_at=None)


def test_a_class_of_ones_own_lives_in_one_thread_of_its_own() -> None:
    TAKEN.clear()
    sink = made(f"{__name__}:Taking", more=3)
    for step in (1, 2):
        sink.log(training(step))
    sink.close()
    sink.close()
    (name, more, thread), *rest = TAKEN
    assert (name, more) == ("a", 3)
    assert rest == [(1, thread), (2, thread), ("closed", thread)]
    assert thread != threading.get_ident()


def test_a_sink_that_fails_is_told_of_once_and_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    faulty = Faulty()
    sink = OutsideSink("pkg.mod:Faulty", lambda: faulty)
    with caplog.at_level(logging.WARNING, "disttrain"):
        for step in range(1, 50):
            sink.log(training(step))
        sink.close()
        sink.log(training(50))
    assert faulty.steps == [1, 2]
    assert faulty.closed == 1
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("log.sinks: pkg.mod:Faulty failed and gets nothing more: ConnectionError: the network;")


def test_a_sink_that_hangs_holds_up_nothing(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outside_module, "BACKLOG", 8)
    monkeypatch.setattr(outside_module, "HURRY", 0.1)
    release = threading.Event()
    sink = OutsideSink("slow", lambda: Faulty(release))
    began = time.monotonic()
    with caplog.at_level(logging.WARNING, "disttrain"):
        for step in range(1, 100):
            sink.log(training(step))
        sink.log({"event": "end", "state": "failed", "step": 100})
        sink.close()
    assert time.monotonic() - began < 10
    release.set()
    (line,) = [record.getMessage() for record in caplog.records]
    assert "slow does not keep up: some records are lost to it" in line


def leave() -> Sink:
    sys.exit(3)


def test_a_sink_that_wants_to_exit_ends_itself_alone(caplog: pytest.LogCaptureFixture) -> None:
    """In a thread ``sys.exit`` ends that thread, silently."""
    with pytest.raises(RuntimeError, match="SystemExit: 3"):
        OutsideSink("leaving", leave)

    class Leaving(Faulty):
        def log(self, record: Mapping[str, object]) -> None:
            sys.exit(3)

    sink = OutsideSink("leaving", Leaving)
    with caplog.at_level(logging.WARNING, "disttrain"):
        sink.log(training(1))
        sink.close()
    (line,) = [record.getMessage() for record in caplog.records]
    assert "leaving failed and gets nothing more: SystemExit: 3" in line


def test_a_sink_that_hangs_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outside_module, "HURRY", 0.5)
    monkeypatch.setattr(outside_module, "BEGINNING", 0.1)
    release = threading.Event()

    def never() -> Sink:
        release.wait(20)
        return Faulty()

    sink = OutsideSink("slow", lambda: Faulty(release))
    sink.log(training(2))
    sink.close()
    began = time.monotonic()
    sink.close()
    assert time.monotonic() - began < 0.3
    with pytest.raises(TimeoutError, match="not there after"):
        OutsideSink("never", never)
    release.set()


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (lambda: made(f"{__name__}:NOT_A_SINK"), "NOT_A_SINK is of type int; expected a class"),
        (lambda: made(f"{__name__}:Taking", wrong=1), "Taking: got an unexpected keyword argument 'wrong'"),
        (lambda: made(f"{__name__}:LogOnly"), "LogOnly has no method close"),
        (lambda: made(f"{__name__}:Tking"), "did you mean Taking"),
        (lambda: made("mlflow", experimet="x"), "mlflow: got an unexpected keyword argument 'experimet'"),
    ],
)
def test_what_cannot_be_made_is_refused(entry: Callable[[], Sink], said: str) -> None:
    with pytest.raises(InputError, match=said):
        entry()


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_missing_package_is_named_with_what_installs_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [name, *(found for found in sys.modules if found.startswith(f"{name}."))]:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(
        InputError, match=rf'log\.sinks: {name} needs the package {name} .*pip install "disttrain\[{name}\]"'
    ):
        made(name)


def test_numbers_by_name() -> None:
    assert scalars(training(2, losses={"a": 0.5}, note="x", flag=True)) == {
        **{f"train/{key}": value for key, value in training(2).items() if key != "step"},
        "train/losses/a": 0.5,
    }
    assert scalars(EVALUATION)["test/accuracy"] == EVALUATION["accuracy"]
    assert scalars({**EVALUATION, "split": "train"})["train_set/accuracy"] == EVALUATION["accuracy"]
    assert scalars({"event": "start", "step": 0, "ranks": 2}) == {}
