"""What is known of a run's memory: who may say so, for how long, and what follows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from disttrain.config import load_recipe
from disttrain.engine.local import LocalEngine
from disttrain.engine.world import World
from disttrain.errors import InputError, OutOfMemoryError
from disttrain.nn.facts import ModelFacts
from disttrain.plan.plan import resolve_plan
from disttrain.plan.smaller import halved
from disttrain.rundir.memory import Fit, Limit, known_limit, note_fit, note_shortage, read_fits, stated
from disttrain.rundir.rundir import METRICS, Place

ENGINE = LocalEngine(World(0, 1, 0, 1, 0, torch.device("cpu")))
NOTE = Fit("per_rank_max 64", "cpu", 8, 32, too_large=64, rank=3, update=7)


@pytest.fixture
def known(tmp_path: Path) -> Any:
    """The limit of a start in a directory that holds a run; a search finds 20, or what it may begin with."""
    (tmp_path / METRICS).write_text("")

    def find(*words: str) -> Limit:
        place = Place(tmp_path, load_recipe(None, list(words)), goes_on=False)
        return known_limit(place, ENGINE, lambda recipe, world, most: min(20, most or 20))

    return find


def test_a_note_holds_while_the_recipe_states_the_same(known: Any, tmp_path: Path) -> None:
    assert known("batch.per_rank_max=64").most is None
    note_fit(tmp_path, NOTE)
    assert known("batch.per_rank_max=64") == Limit(32, (NOTE,))
    assert known("batch.per_rank_max=48").most is None, "who states another number means it"
    assert known("batch.per_rank_max=null").most is None
    note_fit(tmp_path, replace(NOTE, rank=0, most=16, too_large=32))
    assert known("batch.per_rank_max=64").most == 16, "the smallest decides"
    note_fit(tmp_path, replace(NOTE, rank=0, most=8, device="another"))
    assert known("batch.per_rank_max=64").most == 32, "another device has another memory"


def test_a_search_is_made_once_for_each_number_of_ranks(known: Any, tmp_path: Path) -> None:
    auto = "batch.per_rank_max=auto"
    found = Fit("per_rank_max auto", "cpu", 1, 20)
    assert known(auto) == Limit(20, (found,))
    note_fit(tmp_path, replace(found, most=24))
    assert known(auto).most == 24, "taken up, not searched for"
    note_fit(tmp_path, replace(found, most=24, ranks=2))
    assert known(auto).most == 20, "searched for again"
    note_fit(tmp_path, replace(found, most=12, ranks=2, too_large=24))
    assert known(auto).most == 12, "what has failed is not tried again"


def test_a_new_run_does_not_inherit(known: Any, tmp_path: Path) -> None:
    note_fit(tmp_path, NOTE)
    (tmp_path / METRICS).unlink()
    assert known("batch.per_rank_max=64").most is None
    assert read_fits(tmp_path) == []


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"stated": 1}', '{"most": "\\u0000"}', "[" * 100_000])
def test_a_damaged_note_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory/rank-0.json").write_text(text)
    with pytest.raises(InputError, match=r"rank-0\.json: .*remove it"):
        read_fits(tmp_path)


def test_half_is_whole_ghosts_and_never_nothing(tmp_path: Path) -> None:
    recipe = load_recipe(None, ["batch.global=400", "batch.per_rank_max=100"])
    ghosts = ModelFacts(ghost_size=32)
    plan = resolve_plan(recipe, 1000, 100, 1, ghosts)
    assert plan.micro_batch == 96
    plan = halved(recipe, plan, ghosts)
    assert plan.micro_batch == 32
    with pytest.raises(OutOfMemoryError, match="one ghost of 32 samples at once, and nothing smaller is left"):
        halved(recipe, plan, ghosts)
    at = (tmp_path, recipe, resolve_plan(recipe, 1000, 100, 1), ModelFacts(), ENGINE.world)
    assert "goes on from the last checkpoint with 50" in note_shortage(*at, update=4)
    assert read_fits(tmp_path) == [Fit("per_rank_max 100", "cpu", 1, 50, too_large=100, rank=0, update=4)]


def test_what_cannot_be_accumulated_says_so() -> None:
    recipe, sync = load_recipe(None, ["batch.global=400"]), ModelFacts(sync_norm=True)
    with pytest.raises(OutOfMemoryError, match=r"with 200 samples at once, and 100 are refused: batch_norm\.kind sync"):
        halved(recipe, resolve_plan(recipe, 1000, 100, 2, sync), sync)


def test_what_is_stated() -> None:
    assert stated(load_recipe(None, ["batch.global=null", "batch.per_rank=8"])) == "per_rank 8"
    assert stated(load_recipe(None, ["batch.per_rank_max=auto"])) == "per_rank_max auto"
