"""Callbacks and training from Python on real ranks: what one of them does, all of them learn."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.harness import every_launcher, launch, lines, train

SMALL = [
    "updates=8",
    "epochs=null",
    "evaluate.updates=4",
    "log={every_steps: 2, sinks: []}",
    "model={name: mlp, hidden: [16]}",
]


@pytest.mark.parametrize("launcher", every_launcher("ranks", "mpirun-horovod"))
def test_one_rank_asks_for_a_stop_and_all_end_after_the_same_update(launcher: str, tmp_path: Path) -> None:
    callback = "callbacks=[{name: 'tests.ranks.watchers:StopOnOne', step: 5}]"
    result = train(launcher, 2, tmp_path / "run", *SMALL, callback).check()
    assert "enough, said one rank" in result.out
    found = lines(tmp_path / "run")
    assert [line["step"] for line in found if line.get("split") == "test"] == [4, 5]
    assert (found[-1]["state"], found[-1]["updates"]) == ("finished", 5)


@pytest.mark.parametrize(
    ("callback", "said"),
    [
        (
            "{name: 'tests.ranks.watchers:FailOnOne', step: 3}",
            "rank 1: callback tests.ranks.watchers:FailOnOne failed in on_update at update 3",
        ),
        (
            "'tests.ranks.watchers:FailOnMain'",
            "rank 0: callback tests.ranks.watchers:FailOnMain failed in on_evaluation at update 4",
        ),
    ],
)
def test_an_error_on_one_rank_ends_all_with_one_message(callback: str, said: str, tmp_path: Path) -> None:
    result = train("ranks", 2, tmp_path / "run", *SMALL, f"callbacks=[{callback}]")
    assert result.code == 4
    assert (result.err.count(said), result.err.count("KeyError: 'what"), result.err.count("disttrain:")) == (1, 2, 1)
    assert lines(tmp_path / "run")[-1]["state"] == "failed"


@pytest.mark.parametrize("launcher", every_launcher("ranks", "horovodrun"))
def test_a_script_trains_several_times_in_one_process(launcher: str, tmp_path: Path) -> None:
    fail = "fail" if launcher == "ranks" else "-"
    launch(launcher, 2, ["tests/ranks/watchers.py", str(tmp_path), fail]).check()
    first, second = (json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in range(2))
    assert first == second
    assert all(metrics == first["metrics"][0] for metrics in first["metrics"])
    assert first["evaluated"]["accuracy"] == first["metrics"][0]["accuracy"]
    again, wrong = first["said"]
    assert again.startswith("InputError: this process has joined its job of several ranks once already")
    failed = "RankError: rank 1: callback __main__:FailOnOne failed in on_update at update 2: KeyError"
    assert wrong.startswith(failed if launcher == "ranks" else "InputError: the recipe is a int")
