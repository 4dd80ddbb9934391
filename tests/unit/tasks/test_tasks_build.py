"""Names to tasks: what each class is given, and what a wrong recipe is told."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from disttrain.config import load_recipe
from disttrain.config.sections import tasks as sections
from disttrain.config.sections.tasks import BUILT_IN
from disttrain.errors import InputError
from disttrain.registry import resolve
from disttrain.tasks.build import build_task
from disttrain.tasks.digits import Digits

OWN = """
from disttrain.tasks.base import Task
from disttrain.tasks.digits import Digits

class Mine(Digits):
    def __init__(self, depth, seed=0):
        super().__init__()
        self.depth, self.seed = depth, seed

class Half(Task):
    def sizes(self): ...
    def train_dataset(self): ...
    def evaluate(self): ...

class Uncounted(Digits):
    items_per_sample = None

class NoTask:
    pass
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_built.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))


def refused(section: dict[str, Any], **more: Any) -> str:
    with pytest.raises(InputError) as caught:
        build_task(section, **more)
    return str(caught.value)


SECTIONS: list[tuple[str, type[BaseModel], dict[str, Any]]] = [
    ("digits", sections.Digits, {}),
    ("fashion_mnist", sections.FashionMnist, {}),
    ("mnist", sections.Mnist, {}),
    ("image_folder", sections.ImageFolder, {"root": "x"}),
    ("text", sections.Text, {"root": "x"}),
    ("synthetic", sections.Synthetic, {}),
    ("noisy_quadratic", sections.NoisyQuadratic, {}),
    ("table", sections.Table, {"train": "x", "target": "y"}),
]


@pytest.mark.parametrize(("name", "section", "required"), SECTIONS)
def test_a_recipe_and_the_constructor_agree_in_names_and_defaults(
    name: str, section: type[BaseModel], required: dict[str, Any]
) -> None:
    assert list(BUILT_IN) == [n for n, _, _ in SECTIONS]
    in_recipe = section(name=name, **required).model_dump()
    task = build_task(in_recipe)  # reads nothing
    parameters = inspect.signature(type(task)).parameters
    assert in_recipe.keys() - {"name"} == parameters.keys() - {"seed", "label_smoothing"}
    for key, parameter in parameters.items():
        if key in required or key in ("seed", "label_smoothing"):
            continue
        ours = list(parameter.default) if isinstance(parameter.default, tuple) else parameter.default
        assert in_recipe[key] == ours or key == "augment"


def test_seed_and_label_smoothing_are_passed_on() -> None:
    task = build_task({"name": "mnist"}, seed=5, label_smoothing=0.1)
    assert (task.seed, task.label_smoothing) == (5, 0.1)  # type: ignore[attr-defined]
    assert build_task({"name": "digits"}, seed=5, label_smoothing=0.2).label_smoothing == 0.2  # type: ignore[attr-defined]


def test_own_task(own: None) -> None:
    task = build_task({"name": "own_built:Mine", "depth": 2}, seed=7)
    assert isinstance(task, Digits)
    assert (task.depth, task.seed) == (2, 7)  # type: ignore[attr-defined]
    assert build_task({"name": "own_built:Mine", "depth": 2, "seed": 1}, seed=7).seed == 1  # type: ignore[attr-defined]


def test_own_task_through_a_recipe(own: None, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "task: {name: 'own_built:Mine', depth: 3}\nbatch: {global: 8}\nepochs: 1\noptimizer: {name: sgd, lr: 0.1}\n"
    )
    recipe = load_recipe(path)
    assert build_task(recipe.task.model_dump()).depth == 3  # type: ignore[attr-defined]


def test_own_task_that_does_not_fit(own: None) -> None:
    assert refused({"name": "own_built:Mine"}) == (
        "task own_built:Mine: missing a required argument: 'depth'. Its parameters are depth, seed; the recipe gives none"
    )
    assert "'width'. Its parameters are depth, seed; the recipe gives depth, width" in refused(
        {"name": "own_built:Mine", "depth": 1, "width": 2}
    )
    assert refused({"name": "own_built:Mine", "depth": 1}, label_smoothing=0.1) == (
        "loss.label_smoothing is 0.1, but task own_built:Mine has no parameter label_smoothing; set it to 0"
    )
    assert refused({"name": "own_built:Half"}) == (
        "task own_built:Half: the class does not define losses, test_dataset"
    )
    assert refused({"name": "own_built:Uncounted"}) == (
        "task own_built:Uncounted: its items_per_sample is None, so the class has to define count_items()"
    )
    assert "expected a subclass of disttrain.tasks.base.Task" in refused({"name": "own_built:NoTask"})


def test_unknown_name() -> None:
    assert "did you mean digits?" in refused({"name": "digit"})


def test_all_built_ins_are_tasks_with_a_default_model() -> None:
    from disttrain.models.build import MODELS

    for name in BUILT_IN:
        model = resolve(name, BUILT_IN).default_model[0]
        assert model in MODELS or resolve(model, {})
