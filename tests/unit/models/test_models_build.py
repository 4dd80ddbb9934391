"""Names to models: what each callable is given, and what a wrong recipe is told."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import BaseModel
from torch import nn

from disttrain.config.sections import models as sections
from disttrain.errors import InputError
from disttrain.models.build import MODELS, build_model, is_ours
from disttrain.registry import resolve

IMAGES = {"in_shape": (1, 28, 28), "num_classes": 7}
TEXT = {"vocab_size": 11, "sequence_length": 5}

LIBRARY = """
from torch import nn

def {function}(name, num_classes=1000, **config):
    if name != "net":
        raise {error}(f"Unknown model {{name}}")
    return Net(num_classes, **config)

class Net(nn.Linear):
    def __init__(self, num_classes, in_chans=3, depth=1):
        super().__init__(in_chans, num_classes)
        self.depth = depth
"""

OWN = """
from torch import nn

NUMBER = 3

class Net(nn.Linear):
    def __init__(self, num_classes, width=4, **rest):
        assert not rest, rest
        super().__init__(width, num_classes)

def no_module(num_classes):
    return num_classes

def needs(colour):
    return nn.Identity()
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_models.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.fixture
def libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Stand-ins for timm and torchvision, which the tests do not depend on."""
    (tmp_path / "timm.py").write_text(LIBRARY.format(function="create_model", error="RuntimeError"))
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text("")
    (tmp_path / "torchvision" / "models.py").write_text(LIBRARY.format(function="get_model", error="ValueError"))
    monkeypatch.syspath_prepend(str(tmp_path))
    names = ("timm", "torchvision", "torchvision.models")
    real = {name: sys.modules.pop(name) for name in names if name in sys.modules}
    yield
    for name in names:
        sys.modules.pop(name, None)  # a stand-in left behind would be found by whoever asks for the library next
    sys.modules.update(real)


def refused(name: str, arguments: dict[str, Any] | None = None, hints: dict[str, Any] = IMAGES) -> str:
    with pytest.raises(InputError) as caught:
        build_model(name, arguments or {}, hints)
    return str(caught.value)


@pytest.mark.parametrize("name", MODELS)
def test_built_ins(name: str) -> None:
    hints = TEXT if name == "transformer" else {"in_shape": (1, 16, 16), "num_classes": 7}
    inputs = torch.zeros(2, 5, dtype=torch.int64) if name == "transformer" else torch.zeros(2, 1, 16, 16)
    expected = (2, 5, 11) if name == "transformer" else (2, 7)
    assert build_model(name, {}, hints)(inputs).shape == expected
    assert is_ours(name)


SECTIONS = (
    sections.Mlp,
    sections.ConvNet,
    sections.ResNet18,
    sections.ResNet44,
    sections.ResNet50,
    sections.Transformer,
)


@pytest.mark.parametrize(("name", "section"), list(zip(MODELS, SECTIONS, strict=True)))
def test_a_recipe_and_the_constructor_agree_in_names_and_defaults(name: str, section: type[BaseModel]) -> None:
    in_recipe = section(name=name).model_dump()
    assert in_recipe.pop("name") == name
    make = resolve(name, MODELS)
    parameters = inspect.signature(make).parameters
    supplied = {**IMAGES, **TEXT, **getattr(make, "keywords", {})}  # a ResNet's depth follows from its name
    assert in_recipe.pop("sequence_length", None) is None  # the task supplies it
    defaults = {
        key: list(p.default) if isinstance(p.default, tuple) else p.default
        for key, p in parameters.items()
        if key not in supplied
    }
    assert in_recipe == defaults


def test_own_callable_gets_the_hints_it_names(own: None) -> None:
    model = build_model("own_models:Net", {"width": 6}, IMAGES)
    assert isinstance(model, nn.Linear)
    assert (model.in_features, model.out_features) == (6, 7)
    assert not is_ours("own_models:Net")
    assert build_model("own_models:Net", {"num_classes": 2}, IMAGES).out_features == 2


def test_own_callable_that_does_not_fit(own: None) -> None:
    assert "missing a required argument: 'colour'" in refused("own_models:needs")
    unexpected = refused("own_models:needs", {"colour": 1, "size": 2})
    assert "'size'" in unexpected
    assert "Its parameters are colour; the recipe gives colour, size; the task knows in_shape" in unexpected
    assert "made a int, not a torch.nn.Module" in refused("own_models:no_module")
    assert "is a int; expected a class or a function" in refused("own_models:NUMBER")


def test_a_model_that_does_not_fit_the_task() -> None:
    message = refused("convnet", hints=TEXT)
    assert "missing a required argument: 'in_shape'" in message
    assert "the task knows vocab_size, sequence_length" in message
    assert "'vocab_size'" in refused("transformer")


def test_unknown_name() -> None:
    assert "did you mean convnet?" in refused("convet")


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_library(libraries: None, library: str) -> None:
    model = build_model(f"{library}:net", {"depth": 3}, {"in_shape": (3, 32, 32), "num_classes": 7})
    assert (model.in_features, model.out_features, model.depth) == (3, 7, 3)
    assert build_model(f"{library}:net", {"num_classes": 9}, IMAGES).out_features == 9
    assert not is_ours(f"{library}:net")
    unknown = refused(f"{library}:nett", {"depth": 2})
    assert f"model {library}:nett: {library} cannot make it with num_classes, " in unknown
    assert "Unknown model nett" in unknown
    assert "unexpected keyword argument 'colour'" in refused(f"{library}:net", {"colour": 1})


def test_timm_is_told_the_channels(libraries: None) -> None:
    assert build_model("timm:net", {}, IMAGES).in_features == 1
    assert build_model("timm:net", {"in_chans": 2}, IMAGES).in_features == 2


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_library_that_is_not_installed(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("disttrain.models.build.find_spec", lambda name: None)
    message = f"model {library}:resnet18 needs {library}, which is not installed: pip install {library}"
    assert refused(f"{library}:resnet18") == message
