"""``key.path=value``: the rules of the file, and the override named in every message."""

from __future__ import annotations

from pathlib import Path

import pytest
from config_cases import GOOD, RATE, changed, load, mistakes

from disttrain.config import flatten, load_recipe

MISTAKES = {
    "optimizer.lr=fast": f'optimizer.lr: got "fast"; expected {RATE}',
    "optimizer.learning_rte=1": "optimizer.learning_rte: unknown key; did you mean optimizer.lr?",
    "lr=1": "lr: unknown key; did you mean optimizer.lr?",
    "optimizer.lr=010": f'optimizer.lr: got "010"; expected {RATE}; write 10',
    "optimizer.lr=null": f"optimizer.lr: got null; expected {RATE}",
    "optimizer.lr=": "optimizer.lr: there is no value; write null to take a value away",
    "optimizer.lr= ": "optimizer.lr: there is no value; write null to take a value away",
    "optimizer.lr": "expected key.path=value",
    "=1": "expected key.path=value",
    "optimizer..lr=1": "expected key.path=value",
    ".lr=1": "expected key.path=value",
    "optimizer.lr.x=3": "optimizer.lr is 0.1, not a section: give its whole value",
    "optimizer={name: sgd}": f"optimizer.lr: is required; expected {RATE}",
    "optimizer={name: sgd, lr: 1, lr: 2}": "optimizer.lr: is given twice, first in line 1",
    "optimizer.name=adamw": f"optimizer.lr: is required; expected {RATE}",
    "optimizer.lr=&a 1": "optimizer.lr: anchor &a: write the value out; recipes have no references",
    "optimizer.lr=!!float 1": 'optimizer.lr: tag "tag:yaml.org,2002:float": recipes hold plain values only',
    "task.root=[": "task.root: is not YAML: expected the node content, but found '<stream end>'",
    "epochs=null": "epochs: expected exactly one of epochs, samples, updates; got none",
    "schedule.warmup.kind=linear": "schedule.warmup: expected exactly one of epochs, samples, updates; got none",
    "schedule.warmup.epochs=3": "schedule.warmup.epochs: 3 is beyond the run of 2 epochs",
    "gradient=5": "gradient: got 5; expected a section (key: value)",
    "qqq.at.all=5": (
        "qqq: unknown key; expected one of name, task, model, start_from, trainable, batch, epochs, samples, updates, optimizer, "
        "stages, schedule, precision, loss_scaling, reduced_precision_reductions, gradient, loss, compile, memory_format, "
        "activation_checkpointing, batch_norm, dropout, average, data, evaluate, early_stopping, checkpoint, callbacks, log, "
        "communication, noise_scale, numerics, update_angle, seed"
    ),
}


@pytest.mark.parametrize(("override", "expected"), MISTAKES.items(), ids=MISTAKES.keys())
def test_a_mistake_names_the_override(tmp_path: Path, override: str, expected: str) -> None:
    assert mistakes(tmp_path, GOOD, [override]) == [f"override '{override}': {expected}"]


def test_mistakes_of_file_and_overrides_come_together_the_file_first(tmp_path: Path) -> None:
    found = mistakes(tmp_path, changed("lr: 0.1", "lr: fast"), ["seed=x", "batch.global=0"])
    assert found == [
        f'r.yaml:5: optimizer.lr: got "fast"; expected {RATE}',
        "override 'batch.global=0': batch.global: got 0; expected a whole number from 1 to 1000000000",
        "override 'seed=x': seed: got \"x\"; expected a whole number from 0 to 9223372036854775807",
    ]


def test_an_override_repairs_the_file(tmp_path: Path) -> None:
    assert load(tmp_path, changed("lr: 0.1", "lr: fast"), ["optimizer.lr=1e-4"]).optimizer.lr == 1e-4


def test_the_last_one_counts(tmp_path: Path) -> None:
    assert load(tmp_path, GOOD, ["seed=1", "seed=2"]).seed == 2
    assert mistakes(tmp_path, GOOD, ["seed=2", "seed=x"])[0].startswith("override 'seed=x'")
    assert load(tmp_path, GOOD, ["optimizer.lr=7", "optimizer={name: sgd, lr: 8}"]).optimizer.lr == 8


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["model={name: mlp, hidden: [8, 4]}"], {"model.name": "mlp", "model.hidden": [8, 4]}),
        (["model.name=mlp", "model.hidden=[8]"], {"model.hidden": [8]}),
        (["model.hidden=[8]", "model.name=mlp"], {"model.hidden": [8]}),
        (["evaluate=null"], {"evaluate": None}),
        (["evaluate.batch=10"], {"evaluate.batch": 10, "evaluate.epochs": 1.0}),
        (["checkpoint.best=false"], {"checkpoint.best": False}),
        (["name=2024-01-01"], {"name": "2024-01-01"}),
        ([" seed =3"], {"seed": 3}),
        (["task={name: 'a:B', path: 'x=y'}"], {"task.path": "x=y"}),
        (["samples=100"], {"epochs": None, "samples": 100}),
        (["batch.per_rank=4"], {"batch.global": None, "batch.per_rank": 4}),
        (["schedule.warmup.samples=9"], {"schedule.warmup.samples": 9, "schedule.warmup.kind": "linear"}),
        (["optimizer.name=adamw", "optimizer.lr=0.01"], {"optimizer.lr": 0.01, "optimizer.betas": [0.9, 0.999]}),
        (["optimizer.lr=0.01", "optimizer.name=adamw"], {"optimizer.lr": 0.01, "optimizer.name": "adamw"}),
        (["optimizer.name=sgd"], {"optimizer.lr": 0.1}),
        (["schedule.decay.kind=step", "schedule.decay.every.epochs=1"], {"schedule.decay.every.epochs": 1.0}),
    ],
)
def test_what_overrides_can_say(tmp_path: Path, overrides: list[str], expected: dict[str, object]) -> None:
    found = flatten(load(tmp_path, GOOD, overrides))
    assert {key: found[key] for key in expected} == expected


def test_two_lengths_on_the_command_line_are_a_mistake(tmp_path: Path) -> None:
    assert mistakes(tmp_path, GOOD, ["epochs=1", "samples=5"]) == [
        "override 'samples=5': samples: expected exactly one of epochs, samples, updates; got epochs and samples"
    ]


def test_another_decay_drops_the_keys_of_the_old_one(tmp_path: Path) -> None:
    text = GOOD + "schedule: {decay: {kind: polynomial, power: 3, end: 0.1}}\n"
    assert load(tmp_path, text, ["schedule.decay.kind=cosine"]).schedule.decay.model_dump() == {
        "kind": "cosine",
        "end": 0.0,
    }


def test_arguments_of_the_user_s_own_class_do_not_replace_each_other(tmp_path: Path) -> None:
    text = changed("{name: digits}", "{name: 'a:B', epochs: 3, model: {name: x, y: 1}}")
    found = flatten(load(tmp_path, text, ["task.samples=7", "task.model.name=z"]))
    assert {key: value for key, value in found.items() if key.startswith("task.")} == {
        "task.name": "a:B",
        "task.epochs": 3,
        "task.model.name": "z",
        "task.model.y": 1,
        "task.samples": 7,
    }


def test_overrides_of_the_default_recipe() -> None:
    assert load_recipe(None, ["epochs=1"]).epochs == 1
