"""Training, evaluating and loading from Python, in one process that stays as it was."""

from __future__ import annotations

import gc
import logging
import os
import random
import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import disttrain
from disttrain.config import RecipeError, check_recipe, load_recipe
from disttrain.errors import InputError, NoCheckpointError, StopRequested
from disttrain.precision import SWITCHES
from disttrain.tasks.digits import Digits
from tests.harness import disttrain as command

SMALL: dict[str, Any] = {
    "model": {"name": "mlp", "hidden": [16]},
    "batch": {"global": 64},
    "updates": 6,
    "optimizer": {"name": "sgd", "lr": 0.1},
    "evaluate": {"train": False, "updates": 3},
    "log": {"every_steps": 3, "sinks": []},
}
ON_DIGITS = {"task": {"name": "digits"}, **SMALL}


class OwnDigits(Digits):
    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.given_seed = seed


def own_model(num_classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Linear(8, num_classes))


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_a_path_a_dict_and_an_object_are_the_same_recipe(tmp_path: Path) -> None:
    recipe = disttrain.Recipe.model_validate(ON_DIGITS)
    recipe.optimizer.lr = 0.05
    recipe.save(tmp_path / "small.yaml")
    assert load_recipe(tmp_path / "small.yaml").optimizer.lr == 0.05
    given = (recipe, tmp_path / "small.yaml", {**ON_DIGITS, "optimizer": {"name": "sgd", "lr": 0.05}})
    results = [disttrain.train(one, run_dir=tmp_path / str(i), quiet=True) for i, one in enumerate(given)]
    assert results[0].metrics == results[1].metrics == results[2].metrics
    assert results[0].step == 6
    assert results[0].best_step in (3, 6)
    assert {"accuracy", "updates", "best_accuracy", "run_dir"} <= results[0].summary.keys()
    assert disttrain.evaluate(results[0].run_dir) == pytest.approx(results[0].metrics)


def test_paths_and_numbers_of_numpy_stand_in_a_dict(tmp_path: Path) -> None:
    section = {"name": "sgd", "lr": np.float32(0.5)}
    found = check_recipe({**ON_DIGITS, "updates": np.int64(4), "start_from": tmp_path / "a.pt", "optimizer": section})
    assert (found.updates, found.optimizer.lr) == (4, 0.5)
    assert found.start_from is not None
    assert found.start_from.path == str(tmp_path / "a.pt")


def test_mistakes_are_raised_with_the_messages_of_the_command_line(tmp_path: Path) -> None:
    with pytest.raises(
        RecipeError, match=r"the recipe: optimizer\.learning_rate: unknown key; did you mean optimizer\.lr"
    ):
        disttrain.train({**ON_DIGITS, "optimizer": {"name": "sgd", "lr": 0.1, "learning_rate": 1}})
    with pytest.raises(RecipeError, match=r"^the recipe: batch\.globl: unknown key"):
        disttrain.train({**ON_DIGITS, "batch": {"globl": 3}}, task=OwnDigits)
    recipe = disttrain.Recipe.model_validate(ON_DIGITS)
    recipe.epochs = 2.0
    for action in (lambda: disttrain.train(recipe), lambda: recipe.save(tmp_path / "x.yaml")):
        with pytest.raises(RecipeError, match="expected exactly one of epochs, samples, updates"):
            action()
    bad: list[dict[str, Any]] = [
        {"resume": "yes"},
        {"resume": []},
        {"task": 3},
        {"model": 3},
        {"engine": "mpi"},
        {"recipe": 3},
    ]
    for given in bad:
        with pytest.raises(InputError):
            disttrain.train(**{"recipe": ON_DIGITS, "quiet": True, **given})
    with pytest.raises(InputError, match="holds no run"):
        disttrain.load_model(tmp_path)


def test_a_task_and_a_model_of_ones_own(tmp_path: Path) -> None:
    net = own_model(10)
    before = weights(net)
    first = disttrain.train(SMALL, task=Digits(), model=net, run_dir=tmp_path / "a", quiet=True)
    again = disttrain.train(SMALL, task=Digits(), model=net, run_dir=tmp_path / "b", quiet=True)
    assert same(before, weights(net))
    assert same(weights(first.model()), weights(again.model()))
    assert not same(before, weights(first.model()))
    assert not first.model().training
    saved = load_recipe(first.run_dir / "recipe.yaml")
    assert (saved.task.name, saved.model and saved.model.name) == (
        "python:disttrain.tasks.digits.Digits",
        "python:torch.nn.modules.container.Sequential",
    )
    loaded = disttrain.load_model(first.run_dir, model=net)
    assert same(weights(loaded), weights(first.model()))
    assert disttrain.evaluate(first.run_dir, task=Digits(), model=own_model) == pytest.approx(first.metrics)
    made = disttrain.train(SMALL, task=OwnDigits, model=own_model, run_dir=tmp_path / "c", quiet=True)
    assert disttrain.evaluate(made.run_dir, task=OwnDigits(), model=net) == pytest.approx(made.metrics)


def test_what_was_passed_has_to_be_passed_again(tmp_path: Path) -> None:
    net = own_model(10)
    disttrain.train({**SMALL, "updates": 3}, task=Digits(), model=net, run_dir=tmp_path / "a", quiet=True)
    said = "was passed in Python, and its name alone makes nothing: pass it again, as task= or model="
    again: list[Any] = [
        lambda: disttrain.load_model(tmp_path / "a"),
        lambda: disttrain.evaluate(tmp_path / "a", model=net),
        lambda: disttrain.train(resume=True, run_dir=tmp_path / "a", task=Digits(), quiet=True),
    ]
    for action in again:
        with pytest.raises(InputError, match=said):
            action()
    told = command("evaluate", tmp_path / "a")
    assert (told.code, said in told.err, "Traceback" in told.err) == (2, True, False)
    rest = disttrain.train(SMALL, resume=True, run_dir=tmp_path / "a", task=Digits(), model=net, quiet=True)
    whole = disttrain.train(SMALL, run_dir=tmp_path / "b", task=Digits(), model=net, quiet=True)
    assert rest.step == 6
    assert same(weights(rest.model()), weights(whole.model()))


def test_an_object_cannot_be_told_more(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"was passed as an object, and the recipe has loss\.label_smoothing"):
        disttrain.train({**SMALL, "loss": {"label_smoothing": 0.1}}, task=Digits(), run_dir=tmp_path / "a", quiet=True)


def test_averages_and_the_best_are_there_to_load(tmp_path: Path) -> None:
    recipe = {**ON_DIGITS, "average": {"kind": "ema", "half_life": {"samples": 64}}, "updates": 9}
    result = disttrain.train(recipe, run_dir=tmp_path / "a", quiet=True)
    assert result.best_step is not None
    averaged, trained = result.model(average=True), result.model(average=False)
    assert not same(weights(averaged), weights(trained))
    assert same(weights(result.model()), weights(averaged))
    assert same(weights(result.model("best")), weights(result.model(result.best_step)))
    with pytest.raises(NoCheckpointError, match="has no checkpoint of update 5"):
        result.model(5)
    plain = disttrain.train(ON_DIGITS, run_dir=tmp_path / "b", quiet=True)
    with pytest.raises(InputError, match="keeps no average"):
        plain.model(average=True)


def switches() -> tuple[object, ...]:
    return (
        torch.get_rng_state().tolist(),
        str(np.random.get_state()),
        random.getstate(),
        torch.get_default_dtype(),
        torch.get_float32_matmul_precision(),
        [getattr(backend, name) for backend, names in SWITCHES.items() for name in names],
        [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)],
        list(logging.getLogger("disttrain").handlers),
        gc.get_freeze_count(),
        [thread for thread in threading.enumerate() if not thread.daemon],
    )


def test_the_process_stays_as_it_was_and_quiet_is_quiet(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = switches()
    disttrain.train({**ON_DIGITS, "precision": "fp64"}, run_dir=tmp_path / "a", quiet=True)
    with pytest.raises(InputError):
        disttrain.train(ON_DIGITS, run_dir=tmp_path / "a", quiet=True)
    assert switches() == before
    assert capfd.readouterr() == ("", "")
    disttrain.train(ON_DIGITS, run_dir=tmp_path / "b")
    assert "summary" in capfd.readouterr().out


def test_several_runs_begin_in_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    runs = [disttrain.train({**ON_DIGITS, "updates": 1, "name": "x"}, quiet=True).run_dir for _ in range(3)]
    assert len(set(runs)) == 3
    assert disttrain.train(resume=True, quiet=True).run_dir in runs


class Signals(disttrain.Callback):
    def on_update(self, run: disttrain.RunView) -> None:
        if run.step == 2:
            os.kill(os.getpid(), signal.SIGINT)


def test_control_c_stops_with_everything_saved(tmp_path: Path) -> None:
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(StopRequested, match="stopped on request after update"):
        disttrain.train({**ON_DIGITS, "updates": 4000}, run_dir=tmp_path / "a", callbacks=[Signals()], quiet=True)
    assert signal.getsignal(signal.SIGINT) is handler
    assert any((tmp_path / "a/checkpoints").iterdir())


class Inside(disttrain.Callback):
    """Begins another training while one is at work."""

    said = ""

    def on_start(self, run: disttrain.RunView) -> None:
        with pytest.raises(InputError) as caught:
            disttrain.train(ON_DIGITS, quiet=True)
        self.said = str(caught.value)


def test_other_threads_may_train_but_one_at_a_time(tmp_path: Path) -> None:
    inside, results = Inside(), list[disttrain.Result]()

    def work() -> None:
        results.append(disttrain.train(ON_DIGITS, run_dir=tmp_path / "a", callbacks=[inside], quiet=True))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert results[0].step == 6
    assert "another training is at work in this process" in inside.said
