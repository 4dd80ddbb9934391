"""A plan for a loss over the global batch: nothing is accumulated, now or later, and what measures parts is refused."""

from __future__ import annotations

import pytest

from disttrain.config import load_recipe
from disttrain.errors import InputError
from disttrain.nn.facts import ModelFacts
from disttrain.plan.plan import StepPlan, resolve_plan


def plan(ranks: int, *words: str, ghost: int = 1) -> StepPlan:
    recipe = load_recipe(None, ["batch={global: 512}", "epochs=null", "updates=40", *words])
    return resolve_plan(recipe, 6000, 100, ranks, ModelFacts(ghost_size=ghost, over_global_batch=True))


def test_a_share_at_once_is_fine() -> None:
    assert plan(4, "batch.per_rank_max=128").accumulation == 1
    assert plan(1).micro_batch == 512
    assert plan(3, "batch.per_rank_max=171").share == (170, 171)


@pytest.mark.parametrize(
    ("ranks", "words", "said"),
    [
        (4, ["batch.per_rank_max=127"], "512 on 4 ranks needs batch.per_rank_max of at least 128, or at least 5 ranks"),
        (1, ["batch.per_rank_max=64"], "512 on 1 rank needs batch.per_rank_max of at least 512, or at least 8 ranks"),
        (2, ["batch={per_rank: 64, accumulation: 2}"], "set batch.accumulation to 1"),
        (
            2,
            ["batch={global: 512, growth: {kind: linear, end: 1024, samples: 2000}}"],
            "1024 on 2 ranks needs batch.per_rank_max of at least 512, or at least 4 ranks",
        ),
        (2, ["noise_scale={every_steps: 2}"], "noise_scale compares gradients of its parts"),
        (
            2,
            ["optimizer={name: sgd, lr: 0.1, reference_batch: 64, lr_scaling: adascale}"],
            "adascale compares gradients of its parts",
        ),
    ],
)
def test_what_cannot_be_is_refused_with_what_can(ranks: int, words: list[str], said: str) -> None:
    with pytest.raises(InputError) as error:
        plan(ranks, *words)
    assert said in str(error.value)


@pytest.mark.parametrize(("ranks", "most"), [(4, 127), (1, 64), (3, 100)])
def test_the_numbers_that_are_named_do_work(ranks: int, most: int) -> None:
    enough = -(-512 // most)
    assert plan(enough, f"batch.per_rank_max={most}").accumulation == 1
    with pytest.raises(InputError):
        plan(enough - 1, f"batch.per_rank_max={most}")
    assert plan(ranks, f"batch.per_rank_max={-(-512 // ranks)}").accumulation == 1
