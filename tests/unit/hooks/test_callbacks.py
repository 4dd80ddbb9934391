"""Callbacks in one process: when they are called, what they see, and how they end a run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

import disttrain
from disttrain.errors import InputError, RankError, UserCodeError

SMALL: dict[str, Any] = {
    "task": {"name": "digits"},
    "model": {"name": "mlp", "hidden": [16]},
    "batch": {"global": 64},
    "updates": 12,
    "optimizer": {"name": "sgd", "lr": 0.1},
    "evaluate": {"updates": 4, "train": False},
    "checkpoint": {"every_steps": 6},
    "log": {"every_steps": 2, "sinks": []},
}


class Watch(disttrain.Callback):
    """Notes when it is called."""

    def __init__(self, note: str = "") -> None:
        self.note = note
        self.calls: list[tuple[str, int]] = []
        self.seen: dict[str, Any] = {}

    def on_start(self, run: disttrain.RunView) -> None:
        self.calls.append(("start", run.step))
        self.seen["world"] = (run.world.size, run.total_steps, run.run_dir.is_dir())

    def on_update(self, run: disttrain.RunView) -> None:
        self.calls.append(("update", run.step))

    def on_evaluation(self, run: disttrain.RunView) -> None:
        self.calls.append(("evaluation", run.step))
        self.seen["accuracy"] = run.metrics["accuracy"]
        self.seen["best"] = (run.best, run.best_step)

    def on_save(self, run: disttrain.RunView) -> None:
        self.calls.append(("save", run.step))

    def on_end(self, run: disttrain.RunView) -> None:
        self.calls.append(("end", run.step))
        self.seen["end"] = (run.samples, run.lr, run.epoch, run.loss, run.recipe.seed, run.stop_reason)
        self.seen["weights"] = {name: tensor.clone() for name, tensor in run.model.state_dict().items()}


class StopsAt:
    """No subclass of anything."""

    def __init__(self, moment: str, step: int) -> None:
        self.step = step
        setattr(self, moment, self.look)

    def look(self, run: disttrain.RunView) -> None:
        if run.step == self.step:
            run.stop(f"enough at {self.step}")

    def on_start(self, run: disttrain.RunView) -> None: ...


class Fails:
    def __init__(self, moment: str) -> None:
        setattr(self, moment, self.fail)

    def fail(self, run: disttrain.RunView) -> None:
        raise ZeroDivisionError("oh\nno")

    def on_start(self, run: disttrain.RunView) -> None: ...


class Misspelt:
    def on_epoch_end(self, run: disttrain.RunView) -> None: ...


def lines(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def run(tmp_path: Path, *callbacks: object, **more: Any) -> disttrain.Result:
    return disttrain.train({**SMALL, **more}, callbacks=callbacks, run_dir=tmp_path / "run", quiet=True, engine="local")


def test_the_five_moments_and_what_is_seen(tmp_path: Path) -> None:
    watch = Watch()
    result = run(tmp_path, watch)
    updates = [("update", step) for step in range(1, 13)]
    assert [call for call in watch.calls if call[0] == "update"] == updates
    assert [call for call in watch.calls if call[0] != "update" and call[0] != "save"] == [
        *[("start", 0), ("evaluation", 4), ("evaluation", 8), ("evaluation", 12), ("end", 12)]
    ]
    assert {("save", 6), ("save", 12)} <= set(watch.calls)
    assert watch.seen["world"] == (1, 12, True)
    assert watch.seen["accuracy"] == result.metrics["accuracy"]
    assert watch.seen["best"][1] == result.best_step
    last = [line for line in lines(result.run_dir) if "lr" in line][-1]
    assert watch.seen["end"] == (12 * 64, 0.1, pytest.approx(12 * 64 / 1437), last["loss"], 0, "")
    torch.testing.assert_close(watch.seen["weights"], dict(result.model().state_dict()), rtol=0, atol=0)


def test_a_run_is_the_same_with_callbacks_and_without(tmp_path: Path) -> None:
    watched, plain = run(tmp_path / "a", Watch()), run(tmp_path / "b")
    torch.testing.assert_close(watched.model().state_dict(), plain.model().state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("moment", "asked", "ends", "evaluated"),
    [("on_update", 5, 5, [4, 5]), ("on_evaluation", 4, 4, [4]), ("on_save", 6, 6, [4, 6]), ("on_start", 0, 0, [])],
)
def test_a_stop_is_a_normal_end(tmp_path: Path, moment: str, asked: int, ends: int, evaluated: list[int]) -> None:
    result = run(tmp_path, StopsAt(moment, asked))
    assert (result.step, result.stopped) == (ends, f"enough at {asked}")
    found = lines(result.run_dir)
    assert [line["step"] for line in found if "split" in line] == evaluated
    assert (found[-1]["event"], found[-1]["state"], found[-1]["stopped"]) == ("end", "finished", f"enough at {asked}")
    assert sorted(path.name for path in result.run_dir.glob("checkpoints/*"))[-1:] == (
        [f"step-{ends:08}"] if ends else []
    )


def test_a_run_that_was_stopped_can_go_on(tmp_path: Path) -> None:
    run(tmp_path, StopsAt("on_update", 5))
    whole = run(tmp_path / "other")
    rest = disttrain.train(SMALL, run_dir=tmp_path / "run", resume=True, quiet=True)
    assert (rest.step, rest.stopped) == (12, None)
    torch.testing.assert_close(rest.model().state_dict(), whole.model().state_dict(), rtol=0, atol=0)


def test_at_the_end_it_is_too_late_to_ask_for_it(tmp_path: Path) -> None:
    result = disttrain.train(SMALL, run_dir=tmp_path / "run", callbacks=[StopsAt("on_end", 12)], quiet=True)
    assert (result.step, result.stopped) == (12, None)


@pytest.mark.parametrize("moment", ["on_start", "on_update", "on_evaluation", "on_save", "on_end"])
def test_an_error_ends_the_run_and_names_the_callback(tmp_path: Path, moment: str) -> None:
    with pytest.raises(UserCodeError if moment == "on_start" else RankError) as caught:
        run(tmp_path, Fails(moment))
    assert f"callback test_callbacks:Fails failed in {moment} at update" in str(caught.value)
    assert "ZeroDivisionError: oh" in str(caught.value)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    last = lines(tmp_path / "run")[-1]
    assert (last["event"], last["state"]) == ("end", "failed")


@pytest.mark.parametrize(
    ("callback", "said"),
    [
        (Watch, "Watch is a class; pass an object"),
        (Misspelt(), "has on_epoch_end; the methods are on_start, on_update"),
        (object(), "builtins:object defines none of on_start"),
        (disttrain.Callback(), "defines none of on_start"),
    ],
)
def test_what_would_never_be_called_is_refused(tmp_path: Path, callback: object, said: str) -> None:
    with pytest.raises(InputError, match=said):
        run(tmp_path, callback)
    assert not (tmp_path / "run").exists()


MADE: list[Watch] = []


class Named(Watch):
    def __init__(self, note: str) -> None:
        super().__init__(note)
        MADE.append(self)


def test_a_recipe_names_callbacks_with_arguments(tmp_path: Path) -> None:
    MADE.clear()
    run(tmp_path, callbacks=[{"name": f"{__name__}:Named", "note": "x"}])
    (watch,) = MADE
    assert (watch.note, watch.calls[0], watch.calls[-1]) == ("x", ("start", 0), ("end", 12))
    for entry, said in (
        ({"name": f"{__name__}:Named"}, "missing a required argument: 'note'"),
        ("a.b:C", "no module 'a'"),
    ):
        with pytest.raises(InputError, match=said):
            run(tmp_path / "other", callbacks=[entry])


class Broken:
    """A sink that takes nothing."""

    def log(self, record: Mapping[str, object]) -> None:
        raise OSError("the disk of somebody else is full")

    def close(self) -> None: ...


def test_a_broken_sink_does_not_end_a_run(tmp_path: Path) -> None:
    log = {"every_steps": 2, "sinks": [f"{__name__}:Broken"]}
    assert run(tmp_path, log=log).step == 12
    said = (tmp_path / "run/log/rank-0.log").read_text()
    assert said.count("OSError: the disk of somebody else is full") == 1
    assert lines(tmp_path / "run")[-1]["state"] == "finished"
