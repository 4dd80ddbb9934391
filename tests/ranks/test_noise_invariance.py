"""Readings of the noise scale do not know the cluster, and neither does what follows them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from disttrain.checkpoint import load_latest
from disttrain.verify.verify import max_difference
from tests.harness import every_launcher, lines, sample_ids, train

COMMON = [
    "task.name=digits",
    "batch.global=120",
    "epochs=null",
    "precision=fp64",
    "model.name=mlp",
    "model.hidden=[24,16]",
    "evaluate=null",
    "log={every_steps: 3, sample_ids: true, sinks: []}",
    "seed=5",
]
RECIPES = {
    # AdaScale's rate and length follow each reading; the epoch ends in a batch of 117, whose last slice has 17.
    "slices of ghosts, under AdaScale": [
        "samples=1560",
        "model.norm=ghost_batch",
        "model.ghost_size=10",
        "model.dropout=0.2",
        "optimizer={name: sgd, lr: 0.05, momentum: 0.9, reference_batch: 60, lr_scaling: adascale}",
        "noise_scale={slice: 20, groups: {head: ['head.*'], weights: ['*weight']}}",
    ],
    "samples, of the norm layers": [
        "updates=14",
        "model.norm=layer",
        "optimizer={name: adamw, lr: 0.01}",
        "noise_scale={every_steps: 2, estimator: norm_layers}",
    ],
}


def told(run_dir: Path) -> list[dict[str, Any]]:
    """What training lines say of the noise scale and the rate."""
    found = [line for line in lines(run_dir) if "lr" in line]
    return [{k: v for k, v in line.items() if k.startswith("noise_scale") or k in ("lr", "step")} for line in found]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each recipe in one process, without accumulation but for the slices."""
    found = {}
    for name, words in RECIPES.items():
        found[name] = tmp_path_factory.mktemp("alone") / "run"
        train("none", 1, found[name], *COMMON, *words).check()
    return found


@pytest.mark.parametrize(
    ("launcher", "size"),
    [
        ("ranks", 2),
        pytest.param("ranks", 5, marks=pytest.mark.slow),
        *[pytest.param(*p.values, 2, marks=[*p.marks, pytest.mark.slow]) for p in every_launcher("horovodrun")],
    ],
)
@pytest.mark.parametrize("name", RECIPES)
def test_readings_do_not_know_the_cluster(
    name: str, launcher: str, size: int, alone: dict[str, Path], tmp_path: Path
) -> None:
    train(launcher, size, tmp_path, *COMMON, *RECIPES[name], "batch.per_rank_max=20").check()
    assert sample_ids(tmp_path) == sample_ids(alone[name])
    here, there = (load_latest(path).checkpoint for path in (tmp_path, alone[name]))
    difference, where = max_difference(dict(here.model), dict(there.model))
    assert difference <= 1e-10, where
    mine, theirs = (checkpoint.state["methods"]["noise_scale"] for checkpoint in (here, there))
    assert mine["count"] == theirs["count"] >= 7
    assert_near(mine, theirs)
    assert_near(told(tmp_path), told(alone[name]))
    assert all(value is not None for key, value in told(tmp_path)[-1].items() if not key.endswith("_high"))


def assert_near(mine: Any, theirs: Any) -> None:
    """Plain numbers in nested dicts and lists, up to rounding."""
    if isinstance(mine, dict):
        assert mine.keys() == theirs.keys()
        for key in mine:
            assert_near(mine[key], theirs[key])
    elif isinstance(mine, list):
        for a, b in zip(mine, theirs, strict=True):
            assert_near(a, b)
    elif isinstance(mine, float):
        assert mine == pytest.approx(theirs, rel=1e-9, abs=1e-12)
    else:
        assert mine == theirs


def test_without_slices_the_result_is_said_to_depend_on_the_cut(tmp_path: Path) -> None:
    words = [*COMMON, *RECIPES["slices of ghosts, under AdaScale"]]
    result = train(
        "none", 1, tmp_path, *words, "noise_scale={every_steps: 1}", "batch.per_rank_max=60", "samples=240"
    ).check()
    assert "adascale, which measures between micro-batches (noise_scale.slice makes them alike)" in result.text
