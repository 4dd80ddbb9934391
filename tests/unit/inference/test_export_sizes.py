"""A program is made for every size that the test set has, not for those of its first samples."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from disttrain.config import check_recipe
from disttrain.engine.local import LocalEngine
from disttrain.engine.world import World
from disttrain.errors import InputError
from disttrain.inference.choice import Origin
from disttrain.inference.export.export import export
from disttrain.inference.prepared import Prepared, build_model

ORIGIN = Origin(3, Path("step-00000003"), averaged=False)


def ready(**model: object) -> Prepared:
    recipe = {
        "task": {"name": "odd_models:Padded"},
        "model": {"name": "odd_models:Bag", **model},
        "batch": {"global": 8},
        "updates": 1,
        "optimizer": {"name": "sgd", "lr": 0.1},
    }
    return build_model(check_recipe(recipe), LocalEngine(World(0, 1, 0, 1, 0, torch.device("cpu"))))


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


def test_later_texts_may_be_longer_than_those_it_was_tried_on(tmp_path: Path) -> None:
    run = ready()
    found = export(run, ORIGIN, tmp_path / "a.pt2")
    assert found.metrics == pytest.approx(found.metrics_before)
    program, ids = torch.export.load(tmp_path / "a.pt2").module(), torch.ones(2, 13, dtype=torch.int64)
    with torch.no_grad():
        torch.testing.assert_close(program(ids), run.model.eval()(ids))


def test_a_program_for_odd_numbers_of_samples_alone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\.safetensors takes the weights"):
        export(ready(odd=True), ORIGIN, tmp_path / "a.pt2")
    assert not list(tmp_path.iterdir())
