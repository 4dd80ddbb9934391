"""A stored recipe is the same recipe, whatever is in it; and what may differ when a run is resumed."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from config_cases import GOOD, load
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from disttrain.config import EXECUTION_KEYS, Recipe, dump_recipe, flatten, load_recipe, recipe_differences

COUNTS = st.integers(1, 10**9)
RATES = st.floats(0, exclude_min=True, allow_infinity=False, allow_subnormal=True)
TRICKY = [
    "on",
    "010",
    "1e-3",
    "null",
    "~",
    "",
    "<<",
    "1_000",
    "0x1",
    "=",
    "*a",
    "&a",
    "!x",
    "- a",
    "a: b",
    "#",
    " x ",
    "\n",
]
WORDS = st.sampled_from(TRICKY) | st.text(st.characters(codec="utf-8"), max_size=150)
PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=8,
)
ARGUMENTS = st.dictionaries(
    WORDS.filter(lambda k: not k.startswith(("name", "lr", "ref", "weight"))), PLAIN, max_size=4
)


def own(name: str) -> st.SearchStrategy[dict[str, Any]]:
    return ARGUMENTS.map(lambda arguments: {"name": name, **arguments})


def length(**more: Any) -> st.SearchStrategy[dict[str, Any]]:
    units = [st.fixed_dictionaries({unit: COUNTS, **more}) for unit in ("samples", "updates")]
    return st.one_of(st.fixed_dictionaries({"epochs": st.floats(1e-9, 1e9), **more}), *units)


TASKS = st.one_of(
    st.just({"name": "digits"}),
    st.fixed_dictionaries({"name": st.just("fashion_mnist"), "root": st.none() | WORDS}),
    st.fixed_dictionaries({"name": st.just("text"), "root": WORDS, "test_fraction": st.floats(0.01, 0.99)}),
    own("my_package.tasks:My.Task"),
)
MODELS = st.one_of(
    st.none(),
    st.fixed_dictionaries({"name": st.just("mlp"), "hidden": st.lists(COUNTS, min_size=1, max_size=5)}),
    own("timm:resnet50.a1_in1k"),
)
OPTIMIZERS = st.one_of(
    st.fixed_dictionaries({"name": st.just("sgd"), "lr": RATES, "momentum": st.floats(0, 0.999)}),
    st.fixed_dictionaries({"name": st.just("adamw"), "lr": RATES, "betas": st.just([0.5, 0.25])}),
    own("a.b:C").map(lambda section: {**section, "lr": 0.5}),
)
DECAYS = st.one_of(
    st.fixed_dictionaries({"kind": st.sampled_from(["linear", "cosine", "polynomial"]), "end": st.floats(0, 1)}),
    st.fixed_dictionaries({"kind": st.just("step"), "every": length()}),
    st.just({"kind": "multistep", "milestones": {"updates": [1, 2, 3]}, "gamma": 0.3}),
)
RECIPES = st.fixed_dictionaries(
    {
        "name": st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True),
        "task": TASKS,
        "model": MODELS,
        "batch": st.one_of(
            st.fixed_dictionaries({"global": COUNTS, "per_rank_max": st.none() | COUNTS}),
            st.fixed_dictionaries({"per_rank": COUNTS, "accumulation": COUNTS}),
        ),
        "updates": st.just(10**15),
        "optimizer": OPTIMIZERS,
        "schedule": st.fixed_dictionaries({"warmup": st.none() | length(start=st.floats(0, 1)), "decay": DECAYS}),
        "evaluate": st.none() | length(batch=COUNTS),
        "seed": st.integers(0, 2**63 - 1),
    }
)


@settings(max_examples=300)
@given(RECIPES)
def test_a_stored_recipe_is_the_same_recipe(data: dict[str, Any]) -> None:
    recipe = Recipe.model_validate(data)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "stored.yaml"
        path.write_text(dump_recipe(recipe), encoding="utf-8", newline="")
        again = load_recipe(path)
    # Text tells 1 from 1.0 and -0.0 from 0.0, which equality does not.
    assert repr(again) == repr(recipe)
    assert again == recipe
    assert dump_recipe(again) == dump_recipe(recipe)
    assert recipe_differences(recipe, again) == []


def test_equal_parts_are_written_out(tmp_path: Path) -> None:
    shared = [1, 2]
    data = {"name": "x", "task": {"name": "a:B", "p": shared, "q": shared}, "batch": {"global": 1}}
    text = dump_recipe(Recipe.model_validate({**data, "epochs": 1, "optimizer": {"name": "sgd", "lr": 1}}))
    assert "&" not in text
    assert flatten(load(tmp_path, text))["task.q"] == [1, 2]


def test_the_stored_recipe_says_everything() -> None:
    text = dump_recipe(load_recipe(None))
    for key in ("momentum: 0.9", "dampening: 0.0", "last: keep", "clip_norm: null", "bucket_mb: 25.0", "keep: 3"):
        assert key in text


def test_flatten_gives_every_setting_once(tmp_path: Path) -> None:
    found = flatten(load(tmp_path, GOOD, ["task={name: 'a:B', empty: {}, deep: {x: [1, {y: 2}]}}"]))
    assert found["batch.global"] == 64
    assert found["schedule.decay.kind"] == "constant"
    assert found["task.empty"] == {}
    assert found["task.deep.x"] == [1, {"y": 2}]
    json.dumps(found)


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("optimizer.lr=0.2", "optimizer.lr: 0.1 -> 0.2"),
        ("batch.global=32", "batch.global: 64 -> 32"),
        ("seed=1", "seed: 0 -> 1"),
        ("precision=bf16", 'precision: "fp32" -> "bf16"'),
        ("evaluate=null", "evaluate: (absent) -> null"),
        ("model={name: mlp}", "model: null -> (absent)"),
        ("data.order=replacement", 'data.order: "global_shuffle" -> "replacement"'),
    ],
)
def test_another_training_run_is_told_from_the_same(tmp_path: Path, override: str, line: str) -> None:
    saved = load(tmp_path, GOOD)
    assert line in recipe_differences(saved, load(tmp_path, GOOD, [override]))


def test_values_that_only_python_takes_for_equal_differ(tmp_path: Path) -> None:
    one = load(tmp_path, GOOD, ["task={name: 'a:B', x: 1}"])
    true = load(tmp_path, GOOD, ["task={name: 'a:B', x: true}"])
    assert recipe_differences(one, true) == ["task.x: 1 -> true"]


def test_how_a_run_is_executed_may_change(tmp_path: Path) -> None:
    overrides = [
        *("name=x", "samples=9", "early_stopping={patience: 2}", "batch.per_rank_max=4", "data.workers=3"),
        *("data.prefetch=5", "evaluate.batch=7", "checkpoint.keep=1", "log.every_steps=2", "communication.bucket_mb=1"),
    ]
    saved, given = load(tmp_path, GOOD), load(tmp_path, GOOD, overrides)
    assert flatten(saved) != flatten(given)
    assert recipe_differences(saved, given) == []
    known = flatten(given)
    for key in EXECUTION_KEYS:
        assert any(found == key or found.startswith(f"{key}.") for found in known)


def test_what_is_assigned_gets_the_same_checks() -> None:
    recipe = load_recipe(None)
    recipe.seed, recipe.optimizer.lr = 3, 0.5
    assert (flatten(recipe)["seed"], flatten(recipe)["optimizer.lr"]) == (3, 0.5)
    for section, key, value in ((recipe, "seed", "1"), (recipe.optimizer, "lr", -1.0), (recipe, "sede", 1)):
        with pytest.raises(ValidationError):
            setattr(section, key, value)
    assert recipe.seed == 3


def test_tensorboard_alone_is_how_earlier_recipes_name_their_sinks(tmp_path: Path) -> None:
    for word, sinks in (("true", ["tensorboard"]), ("false", [])):
        recipe = load_recipe(None, [f"log={{tensorboard: {word}, every_steps: 3}}"])
        assert ([sink.name for sink in recipe.log.sinks], recipe.log.every_steps) == (sinks, 3)
        stored = tmp_path / "stored.yaml"  # the same command again, over what the run has stored
        load_recipe(None, ["log.sinks=[tensorboard, wandb]"]).save(stored)
        again = load_recipe(stored, [f"log.tensorboard={word}"])
        assert [sink.name for sink in again.log.sinks] == [*sinks, "wandb"]


def test_python_gets_the_same_checks() -> None:
    recipe = load_recipe(None)
    good = recipe.model_dump(by_alias=True)
    assert Recipe.model_validate(good) == recipe
    for wrong in ({"seed": "1"}, {"epochs": float("nan")}, {"updates": 5}, {"epochs": None}, {"nonsense": 1}):
        with pytest.raises(ValidationError):
            Recipe.model_validate({**good, **wrong})
    for value in (float("inf"), {1: 2}, (1, 2), b"x"):
        with pytest.raises(ValidationError):
            Recipe.model_validate({**good, "task": {"name": "a:B", "x": value}})
