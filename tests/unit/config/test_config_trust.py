"""A recipe that lies in a run directory names objects to be made: only with consent."""

from __future__ import annotations

import inspect
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

import disttrain
from disttrain.config import dump_recipe, load_recipe, outside_objects, recipe_schema
from disttrain.config.reading.trust import OURS
from disttrain.config.sections.base import Open
from disttrain.config.sections.hooks import CallbackEntry, SinkEntry
from disttrain.config.sections.models import CustomModel
from disttrain.config.sections.optimizers import CustomOptimizer
from disttrain.config.sections.tasks import CustomTask, ImageFolder
from disttrain.errors import InputError
from disttrain.registry import resolve
from disttrain.rundir.rundir import recipe_to_resume
from disttrain.study.branch_recipe import UNTIL
from disttrain.study.watch import NAME as WATCH

OWN = ["task={name: 'own.tasks:Task'}", "model={name: 'os:system', command: ls}", "optimizer={name: 'a:B', lr: 0.1}"]


def test_objects_outside_disttrain_are_named_by_their_keys() -> None:
    assert outside_objects(load_recipe(None)) == {}
    assert outside_objects(load_recipe(None, OWN)) == {
        "task.name": "own.tasks:Task",
        "model.name": "os:system",
        "optimizer.name": "a:B",
    }


@pytest.mark.parametrize("name", ["timm:resnet18", "torchvision:resnet18", "disttrain.data.fetch:fetch"])
def test_libraries_and_long_names_of_ours_are_outside_too(name: str) -> None:
    """Their arguments may name files and addresses; a short name's are checked by the recipe."""
    assert outside_objects(load_recipe(None, [f"model.name={name}"])) == {"model.name": name}


def test_callbacks_sinks_and_what_sinks_are_told_are_outside() -> None:
    """A bare name of ours sends nothing anywhere that the user's own settings do not say; arguments may."""
    sinks = "log.sinks=[tensorboard, wandb, {name: mlflow, tracking_uri: 'http://elsewhere'}, 'a.b:Sink']"
    assert outside_objects(load_recipe(None, [sinks, "callbacks=['c.d:Watch']"])) == {
        "callbacks[0].name": "c.d:Watch",
        "log.sinks[2].name": "mlflow",
        "log.sinks[3].name": "a.b:Sink",
    }


def test_what_a_study_and_branches_watch_their_runs_with_needs_no_consent() -> None:
    ours = [f"{{name: '{name}', any: 1}}" for name in (WATCH, UNTIL)]
    near = ["disttrain_evil.study.watch:Watch", "disttrain.study.watch:Watch.on_start", "disttrain:x", "disttrain.a:B"]
    found = outside_objects(load_recipe(None, [f"callbacks=[{', '.join([*ours, *(repr(n) for n in near)])}]"]))
    assert found == {f"callbacks[{i}].name": name for i, name in enumerate(near, start=2)}
    assert outside_objects(load_recipe(None, [f"model.name={WATCH}"])) == {"model.name": WATCH}
    assert set(OURS) == {WATCH, UNTIL}


def test_a_file_called_like_us_is_not_us(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "disttrain" / "study").mkdir(parents=True)
    for name in ("__init__", "study/__init__", "study/watch"):
        (tmp_path / "disttrain" / f"{name}.py").write_text("raise SystemExit('run')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "disttrain.study.watch", raising=False)
    assert inspect.getfile(resolve(WATCH, {})).startswith(str(Path(disttrain.__file__).parent))


def test_what_was_passed_in_python_can_do_nothing_by_its_name() -> None:
    assert outside_objects(load_recipe(None, ["task={name: 'python:MyTask'}", "model.name=python:Net"])) == {}


def test_every_section_that_names_an_object_is_an_open_one_or_says_so() -> None:
    """Where an object's name may stand, its arguments may too; other fields that hold such a name are listed by their section."""
    holders = {key: section for key, section in recipe_schema()["$defs"].items() if "pkg.mod" in json.dumps(section)}
    open_ones = (CustomTask, CustomModel, CustomOptimizer, SinkEntry, CallbackEntry)
    assert holders.keys() - {"Log"} == {
        section.__name__ for section in (*open_ones, ImageFolder)
    }  # Log only lists sinks
    fields = {key for key, field in holders["ImageFolder"]["properties"].items() if "pkg.mod" in json.dumps(field)}
    assert fields == set(ImageFolder.objects)
    assert all(issubclass(section, Open) and issubclass(section, BaseModel) for section in Open.__subclasses__())


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    (tmp_path / "recipe.yaml").write_text(dump_recipe(load_recipe(None, OWN)))
    return tmp_path


def test_a_saved_recipe_needs_consent(run_dir: Path) -> None:
    with pytest.raises(InputError) as caught:
        recipe_to_resume(run_dir, None, ["batch.per_rank_max=8"])
    said = str(caught.value)
    assert all(word in said for word in ("task own.tasks:Task", "model os:system", "optimizer a:B", "--trust"))
    assert str(run_dir / "recipe.yaml") in said
    assert recipe_to_resume(run_dir, None, [], trust=True) == load_recipe(run_dir / "recipe.yaml")


def test_a_recipe_on_the_command_line_is_consent(run_dir: Path) -> None:
    given = load_recipe(None, OWN)
    assert recipe_to_resume(run_dir, given, []) == given


def test_a_name_in_an_override_is_consent_to_that_name_alone(run_dir: Path) -> None:
    with pytest.raises(InputError, match="outside disttrain: optimizer a:B") as caught:
        recipe_to_resume(run_dir, None, OWN[:2])
    assert "os:system" not in str(caught.value)
    assert recipe_to_resume(run_dir, None, OWN) == load_recipe(None, OWN)


def test_names_of_ours_need_none(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(dump_recipe(load_recipe(None)))
    recipe: Any = recipe_to_resume(tmp_path, None, [])
    assert recipe.task.name == "digits"
