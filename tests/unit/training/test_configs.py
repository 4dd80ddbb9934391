"""Every recipe in configs/ resolves on any cluster, and the small ones train."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from disttrain.config import load_recipe
from disttrain.engine.local import LocalEngine
from disttrain.engine.world import World
from disttrain.methods.model import facts_of
from disttrain.plan.explain import explain
from disttrain.plan.plan import resolve_plan
from disttrain.tasks import mnist
from disttrain.tasks.make import make_task, stated_sizes
from disttrain.telemetry import NullSink
from disttrain.training.build import build_run
from disttrain.training.journal import Journal
from disttrain.training.loop import advance, batches

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
EVERY = sorted(path.relative_to(CONFIGS).as_posix() for path in CONFIGS.rglob("*.yaml"))
SMALL = [name for name in EVERY if name.startswith("small/") or name == "fashion_mnist.yaml"]


@pytest.fixture(autouse=True, scope="module")
def _read_once() -> Iterator[None]:
    """The images are read and unpacked once for all recipes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mnist, "load_mnist_like", functools.cache(mnist.load_mnist_like))
        yield


def overrides(name: str) -> list[str]:
    if "shakespeare" not in name:
        return []
    return [f"task.root={Path(os.environ['DISTTRAIN_DATA']) / 'tinyshakespeare' / 'input.txt'}"]


def test_the_recipes_are_all_there() -> None:
    text = " ".join(EVERY)
    for word in ("sgd_8k", "lars_32k", "growth", "novograd", "adasum", "regime", "lamb_phase1_64k", "lamb_phase2_32k"):
        assert word in text
    for batch in (64, 512, 4096, 8192):
        assert f"small/fashion_b{batch}_" in text


@pytest.mark.parametrize("name", EVERY)
def test_recipes_resolve(name: str) -> None:
    recipe = load_recipe(CONFIGS / name, overrides(name))
    sizes = stated_sizes(recipe)
    facts = facts_of(recipe, make_task(recipe))
    # A ghost is never split, so there can be as many ranks as ghosts in the first batch.
    most = 64 if facts.ghost_size == 1 else (recipe.batch.global_ or 0) // facts.ghost_size
    clusters = [ranks for ranks in (1, 8, 64) if ranks <= most]
    assert len(clusters) > 1
    plans = [resolve_plan(recipe, sizes.train, sizes.test, ranks, facts) for ranks in clusters]
    for plan in plans:
        assert all(value and why for _, value, why in explain(recipe, plan))
    # The cluster executes; it does not change what is trained.
    assert len({(p.global_batch, p.peak_lr, p.total_samples, p.total_updates, p.warmup_samples) for p in plans}) == 1


@pytest.mark.parametrize("name", SMALL)
def test_recipes_that_are_compared_do_not_depend_on_the_ranks(name: str) -> None:
    """Batch norm of each rank's own samples would make another recipe of each number of ranks."""
    recipe = load_recipe(CONFIGS / name, overrides(name))
    assert facts_of(recipe, make_task(recipe)).rank_dependent == ()


@pytest.mark.parametrize("name", SMALL)
def test_small_recipes_train(name: str) -> None:
    recipe = load_recipe(CONFIGS / name, [*overrides(name), "log.every_steps=1"])
    run = build_run(recipe, LocalEngine(World(0, 1, 0, 1, 0, torch.device("cpu"))))
    before = [p.detach().clone() for p in run.params]
    stream, journal = batches(run), Journal(run, NullSink())
    for _ in range(3):
        advance(run, next(stream), journal, NullSink())
    journal.flush()
    stream.close()
    assert run.progress.position.updates == 3
    assert all(bool(p.isfinite().all()) for p in run.params)
    assert any(not torch.equal(a, b) for a, b in zip(before, run.params, strict=True))
