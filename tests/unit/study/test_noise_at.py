"""The noise scale at a checkpoint, against all per-sample gradients."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import disttrain
from disttrain.cli.noise import noise
from disttrain.config import saved_recipe
from disttrain.data.selection import held_out
from disttrain.engine.local import LocalEngine
from disttrain.engine.world import World
from disttrain.errors import InputError
from disttrain.inference.choice import Choice
from disttrain.study.noise import Set, _timed, noise_at
from disttrain.tasks.digits import Digits
from tests.harness import disttrain as command

RECIPE: dict[str, Any] = {
    "task": {"name": "digits"},
    "model": {"name": "mlp", "hidden": [12], "norm": "layer", "dropout": 0.3},
    "batch": {"global": 50},
    "updates": 40,
    "optimizer": {"name": "sgd", "lr": 0.1},
    "precision": "fp64",
    "trainable": ["head.*"],
    "log": {"every_steps": 20, "sinks": []},
    "data": {"validation": {"fraction": 0.3}},
}


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("noise") / "run"
    disttrain.train(RECIPE, run_dir=place)
    return place


def gradients(run_dir: Path, part: Set) -> torch.Tensor:
    """(n, parameters) of the trained parameters."""
    model = disttrain.load_model(run_dir)
    dataset = Digits().train_dataset()
    chosen = held_out(len(dataset), 0.3)[part == "validation"]
    x, y = (t[torch.as_tensor(chosen.ids(torch.arange(len(chosen)).numpy()))] for t in dataset.tensors)  # type: ignore[union-attr]
    with torch.no_grad():
        hidden = torch.cat([model.body(x.double()), torch.ones(len(x), 1).double()], dim=1)  # the head's inputs
        rest = model(x.double()).softmax(1) - nn.functional.one_hot(y, 10)
    return (rest[:, :, None] * hidden[:, None, :]).flatten(1)


def test_it_is_that_of_all_gradients(run_dir: Path) -> None:
    engine, recipe = LocalEngine(World.alone(torch.device("cpu"))), saved_recipe(run_dir, trust=False)
    g = gradients(run_dir, "train")
    exact = g.mean(0).square().sum().item(), g.var(0).sum().item()
    single = noise_at(recipe, run_dir, engine, Choice(average=False), "train", slice=1)
    assert (single.estimate.square_norm, single.estimate.trace) == pytest.approx(exact, rel=1e-9)
    assert (single.samples, single.batch, single.name) == (len(g), 50, "noise scale")
    sliced = noise_at(recipe, run_dir, engine, Choice(average=False), "train", batch=512)
    assert sliced.slice == len(g) // 64
    assert sliced.estimate.square_norm == pytest.approx(exact[0], rel=1e-9)
    assert sliced.estimate.low < exact[1] / exact[0] < sliced.estimate.high
    assert "this batch of 512 costs" in sliced.words
    g = gradients(run_dir, "validation")
    products = g @ g.T
    square = products[~torch.eye(len(g)).bool()].mean().item()
    held = noise_at(recipe, run_dir, engine, Choice(average=False), "validation", slice=1)
    assert held.words.startswith("held-out noise scale ")
    assert (held.estimate.square_norm, held.estimate.trace) == pytest.approx(
        (square, products.diagonal().mean().item() - square), rel=1e-9
    )


def test_how_long_it_will_take_is_said_once_where_it_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    for each, words in (
        (0.1, []),
        (0.5, ["2,000 gradients of 1 sample each, about 17 minutes (a larger --slice takes fewer)"]),
    ):
        times, said = itertools.count(0.0, each), list[str]()
        monkeypatch.setattr("disttrain.study.noise.monotonic", lambda times=times: next(times))
        whole = 1000 if words else 50
        assert len(list(_timed(iter([([], 1)] * whole), 2 * whole, 1, said.append))) == whole
        assert said == words


def test_from_the_command_line(run_dir: Path) -> None:
    found = command("noise", str(run_dir), "--json", "--batch", "512")
    said = json.loads(found.check().out)
    assert (said["of"], said["set"], said["batch"], said["updates"]) == ("noise scale", "train", 512, 40)
    assert said["low"] < said["value"] < said["high"]
    with pytest.raises(InputError, match="expected train or validation"):
        noise(run_dir, part="test")


def test_what_cannot_be_measured(run_dir: Path, tmp_path: Path) -> None:
    engine, recipe = LocalEngine(World.alone(torch.device("cpu"))), saved_recipe(run_dir, trust=False)
    none = recipe.model_copy(update={"data": recipe.data.model_copy(update={"validation": None})})
    with pytest.raises(InputError, match="the run has no validation set"):
        noise_at(none, run_dir, engine, Choice(), "validation")
    with pytest.raises(InputError, match="there is no checkpoint"):
        noise_at(recipe, tmp_path, engine, Choice(), "train")
    with pytest.raises(InputError, match="holds no run"):
        noise(tmp_path)
    assert math.isfinite(noise_at(recipe, run_dir, engine, Choice("best"), "train").estimate.trace)
