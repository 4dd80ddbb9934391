"""The JSON Schema for editors, the defaults, the built-in recipe, and what importing all this costs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from config_cases import GOOD, load

from disttrain.config import flatten, load_recipe, recipe_schema

CONFIGS = Path(__file__).parents[3] / "configs"


def test_defaults_are_those_of_the_documentation(tmp_path: Path) -> None:
    found = flatten(load(tmp_path, GOOD))
    expected = {
        "model": None,
        "batch.accumulation": 1,
        "batch.per_rank_max": None,
        "batch.last": "keep",
        "optimizer.momentum": 0.9,
        "optimizer.nesterov": False,
        "optimizer.weight_decay": 0.0,
        "optimizer.weight_decay_exclude": "none",
        "optimizer.reference_batch": None,
        "optimizer.lr_scaling": "linear",
        "schedule.warmup": None,
        "schedule.decay.kind": "constant",
        "precision": "fp32",
        "gradient.clip_norm": None,
        "loss.label_smoothing": 0.0,
        "data.order": "global_shuffle",
        "data.workers": 0,
        "data.prefetch": 2,
        "evaluate.epochs": 1.0,
        "evaluate.batch": 1000,
        "early_stopping": None,
        "checkpoint.every_steps": None,
        "checkpoint.keep": 3,
        "checkpoint.best": True,
        "log.every_steps": 50,
        "log.sinks": [{"name": "tensorboard"}],
        "callbacks": [],
        "log.sample_ids": False,
        "communication.bucket_mb": 25.0,
        "seed": 0,
    }
    assert {key: found[key] for key in expected} == expected


def test_an_integer_is_good_enough_for_a_float(tmp_path: Path) -> None:
    recipe = load(tmp_path, GOOD, ["optimizer.lr=1", "optimizer.momentum=0"])
    assert (type(recipe.optimizer.lr), recipe.optimizer.lr) == (float, 1.0)
    assert type(recipe.epochs) is float


def test_the_built_in_recipe_is_commented_and_trains_without_files() -> None:
    recipe = load_recipe(None)
    assert (recipe.task.name, recipe.name) == ("digits", "digits")
    assert recipe.batch.global_ is not None


def test_recipes_that_come_with_the_source_are_right() -> None:
    for path in CONFIGS.glob("*.yaml"):
        assert load_recipe(path).name


def test_the_schema_describes_every_key() -> None:
    schema = recipe_schema()
    json.dumps(schema)
    assert schema["additionalProperties"] is False
    assert set(schema["required"]) == {"task", "batch", "optimizer"}
    assert set(schema["$defs"]["Batch"]["properties"]) == {
        "global",
        "per_rank",
        "accumulation",
        "per_rank_max",
        "last",
        "growth",
        "adaptive",
    }
    names = [_name(schema, option) for option in schema["properties"]["task"]["oneOf"]]
    assert names[:-1] == [
        "digits",
        "fashion_mnist",
        "mnist",
        "image_folder",
        "text",
        "synthetic",
        "noisy_quadratic",
        "table",
    ]


def _name(schema: dict[str, Any], option: dict[str, str]) -> str | None:
    name = schema["$defs"][option["$ref"].rpartition("/")[2]]["properties"]["name"]
    const: str | None = name.get("const")
    # An editor must not take a built-in name for the user's own: its pattern wants a colon.
    assert const is not None or ":" in name["pattern"]
    return const


def _modules(program: str) -> set[str]:
    code = f"{program}; import json, sys; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def test_nothing_heavy_is_imported_to_read_a_recipe() -> None:
    modules = _modules("from disttrain.config import load_recipe; load_recipe(None); import disttrain.registry")
    heavy = {"torch", "numpy", "sklearn", "rich", "typer", "horovod", "PIL", "safetensors", "tensorboard"}
    assert not heavy & modules
    # Pydantic, PyYAML and the standard library's; each of torch, SciPy and scikit-learn alone brings more.
    assert len(modules) < 400


def test_every_key_has_a_description() -> None:
    schema = recipe_schema()
    sections = {"Recipe": schema, **schema["$defs"]}
    keys = [
        (name, key, what) for name, section in sections.items() for key, what in section.get("properties", {}).items()
    ]
    assert len(keys) > 250
    assert [(name, key) for name, key, what in keys if not what.get("description")] == []
