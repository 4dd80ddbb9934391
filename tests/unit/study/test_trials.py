"""Many trainings: outcomes, divergence, and what a kill leaves, in this process and in workers."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import pytest

import disttrain
from disttrain.errors import InputError, RankError, StopRequested
from disttrain.rundir.rundir import METRICS
from disttrain.study.pool import Pool
from disttrain.study.trials import Outcome, Trial, read_outcome
from tests import harness

resource_tracker.ensure_running()  # one for all tests of this process, and not a thing that a test leaves behind


class StopAt(disttrain.Callback):
    """Ends a run at its first evaluation."""

    def on_evaluation(self, run: disttrain.RunView) -> None:
        run.stop("seen enough")


def test_seconds_are_those_of_all_lines_together(tmp_path: Path) -> None:
    """A start-up, nine quick updates and one that measures, and a second start: 100 samples in 0.09 + 0.31 s."""
    lines: list[dict[str, Any]] = [{"event": "start"}, {"samples": 10, "samples_per_second": 1.0}]
    lines += [{"samples": 10 * n, "samples_per_second": 1000.0} for n in range(2, 11)]
    lines += [{"event": "start"}, {"samples": 100, "samples_per_second": 1.0}]
    lines += [{"samples": 110, "samples_per_second": 10 / 0.31}, {"event": "end", "state": "finished", "step": 11}]
    (tmp_path / METRICS).write_text("".join(json.dumps(line) + "\n" for line in lines))
    outcome = read_outcome(tmp_path)
    assert outcome is not None
    assert outcome.seconds_per_sample == pytest.approx(0.004)


def trial(place: Path, *overrides: str) -> Trial:
    settings = (
        "log.sinks=[]",
        "updates=30",
        "evaluate={updates: 10, train: false, test: false}",
        "data.validation={fraction: 0.1}",
    )
    return Trial(disttrain.Recipe.load(None, *settings, *overrides), place)


def test_outcomes_in_this_process(tmp_path: Path) -> None:
    trials = [
        trial(tmp_path / "whole"),
        trial(
            tmp_path / "early",
            "callbacks=['tests.unit.study.test_trials:StopAt']",
            "noise_scale={every_steps: 31, slice: 16}",
        ),
        trial(tmp_path / "wild", "optimizer={name: sgd, lr: 1.0e30, reference_batch: null}", "schedule.warmup=null"),
    ]
    ended: list[str] = []
    with pytest.raises(StopRequested), Pool() as pool:
        pool.run(trials, lambda trial, outcome: os.kill(os.getpid(), signal.SIGTERM))  # between two of them
    assert [path.name for path in tmp_path.iterdir()] == ["whole"]
    shutil.rmtree(tmp_path / "whole")
    with Pool() as pool:
        whole, early, wild = pool.run(trials, lambda trial, outcome: ended.append(trial.run_dir.name))
        assert (whole.state, whole.updates, early.state, early.why) == ("complete", 30, "stopped", "seen enough")
        assert (wild.state, wild.why[:14], early.updates) == ("diverged", "DivergedError:", 10)
        seen = [samples for samples, _ in whole.curve("validation", "loss")]
        assert [len(seen), seen[-1]] == [3, whole.samples]
        assert early.curve("validation", "loss") == whole.curve("validation", "loss")[:1]
        assert {reading.split for reading in whole.readings} == {"validation"}, "the test set is not wanted"
        (log,) = (tmp_path / "early").rglob("*.log")
        assert "noise_scale.every_steps is 31, and the run has 30 updates: the noise scale is never" in log.read_text()
        assert whole.seconds_per_sample is not None
        assert pool.run(trials) == [whole, early, wild]
        assert ended == ["whole", "early", "wild"]

        path = trials[0].run_dir / METRICS
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))  # killed before the last line
        assert read_outcome(path.parent) is None
        assert pool.run(trials)[0].readings == whole.readings
        path.write_text(path.read_text().replace('"event": "end"', '"event": "?"'))
        with pytest.raises(InputError, match="seed: 1 -> 5"):
            pool.run([trial(tmp_path / "whole", "seed=5")])


def test_one_that_is_stopped_within_a_trial_says_that_the_same_command_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(trial: Trial) -> None:
        raise StopRequested("stopped on request after update 1 of 30; everything is saved")

    monkeypatch.setattr("disttrain.study.pool.run_trial", stopped)
    with pytest.raises(StopRequested, match="the same command goes on"), Pool() as pool:
        pool.run([trial(tmp_path / "a")])


@pytest.mark.slow
def test_two_at_once_and_two_ranks(tmp_path: Path) -> None:
    with Pool(jobs=2) as pool:
        bad = trial(tmp_path / "bad", "task={name: 'tests.unit.study.test_trials:StopAt'}", "model={name: mlp}")
        with pytest.raises(InputError):
            pool.run([bad])
        found = pool.run([trial(tmp_path / "a"), trial(tmp_path / "b", "seed=3"), trial(tmp_path / "c", "seed=2")])
        assert [outcome.updates for outcome in found] == [30, 30, 30]
        assert found[0].readings != found[1].readings
    with Pool(ranks=2) as pool:
        (both,) = pool.run([trial(tmp_path / "d")])
    assert [(r.samples, pytest.approx(r.metrics["loss"], rel=1e-4)) for r in both.readings] == [
        (r.samples, r.metrics["loss"]) for r in found[0].readings
    ]


PROGRAM = """
import sys
from pathlib import Path
from typing import Any
from disttrain.errors import StopRequested
from disttrain.study.pool import Pool
from tests.unit.study.test_trials import trial
if __name__ == "__main__":
    try:
        with Pool(jobs=2) as pool:
            pool.run([trial(Path(name), "updates=4000", "checkpoint.every_steps=200") for name in ("a", "b")])
    except StopRequested as stopped:
        sys.exit(stopped.exit_code)
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_ended_by_a_signal_it_goes_on(tmp_path: Path, number: signal.Signals) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, str(program)], cwd=tmp_path, env=harness.environment())

    def alive() -> bool:
        return any(
            str(tmp_path) in Path(link).resolve().as_posix()
            for link in Path("/proc").glob("[0-9]*/cwd")
            if _readable(link)
        )

    first = start()
    harness.wait_until(lambda: all(list(tmp_path.glob(f"{n}/checkpoints/step-*")) for n in "ab"), "no checkpoint")
    first.send_signal(number)
    assert first.wait(60) == (75 if number == signal.SIGTERM else -9)
    harness.wait_until(lambda: not alive(), "a worker outlived the one who started it", 60)
    assert read_outcome(tmp_path / "a") is None
    time.sleep(0.1)
    assert start().wait(240) == 0
    found = [read_outcome(tmp_path / name) for name in "ab"]
    assert all(isinstance(outcome, Outcome) and outcome.updates == 4000 for outcome in found)


STOPPED_BETWEEN = """
import os, signal, sys
from disttrain.cli.main import main
from disttrain.study import pool
if __name__ == "__main__":
    run_trial = pool.run_trial
    def then_a_signal(trial):
        run_trial(trial)
        os.kill(os.getpid(), signal.SIGTERM)
    pool.run_trial = then_a_signal
    main()
"""


@pytest.mark.slow
def test_a_study_that_is_asked_to_stop_between_two_trials_says_so_by_its_exit_code(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(STOPPED_BETWEEN)
    words = ["study", "updates=2", "data.validation={fraction: 0.1}", "--batches", "32,64", "--out", "study"]
    for count in (1, 2):
        ended = subprocess.run(
            [sys.executable, str(program), *words], cwd=tmp_path, env=harness.environment(), capture_output=True
        )
        assert (ended.returncode, len(list((tmp_path / "study" / "runs").iterdir()))) == (75, count)
        assert b"stopped on request" in ended.stderr


def _readable(link: Path) -> bool:
    try:
        link.readlink()
    except OSError:
        return False
    return True


@pytest.mark.slow
def test_a_lost_process_is_named(tmp_path: Path) -> None:
    with Pool(jobs=2) as pool, pytest.raises(RankError, match="ended with 3"):
        pool.run([trial(tmp_path / "a", "callbacks=['tests.unit.study.test_trials:Die']")])


class Die(disttrain.Callback):
    """Ends its process without a word."""

    def on_start(self, run: disttrain.RunView) -> None:
        os._exit(3)
