"""``gradient.norm_type`` in a recipe."""

from __future__ import annotations

import pytest
import torch
from training_cases import MakeRun

from disttrain.config import RecipeError, load_recipe
from disttrain.training.build import make_loader
from disttrain.training.step import update

WORDS = ["model.hidden=[8]", "optimizer={name: sgd, lr: 1.0, momentum: 0.0}", "precision=fp64", "batch.global=50"]


@pytest.mark.parametrize(("p", "order"), [("1", 1.0), ("3.5", 3.5), ("inf", float("inf"))])
def test_an_update_has_the_norm_that_was_asked_for(make_run: MakeRun, p: str, order: float) -> None:
    run = make_run(*WORDS, "gradient={clip_norm: 0.01, norm_type: " + p + "}")
    before = torch.cat([q.detach().clone().flatten() for q in run.params])
    result = update(run, next(iter(make_loader(run))), lr=1.0)
    step = torch.cat([q.detach().flatten() for q in run.params]) - before
    assert float(torch.linalg.vector_norm(step, order)) == pytest.approx(0.01, rel=1e-3)
    unclipped = make_run(*WORDS)
    assert float(result.grad_norm) == float(update(unclipped, next(iter(make_loader(unclipped))), lr=1.0).grad_norm)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("gradient={clip_norm: 1.0, norm_type: 0.5}", "expected a number of at least 1, or inf"),
        ("gradient={clip_norm: 1.0, norm_type: most}", "expected a number of at least 1, or inf"),
        ("gradient={clip_value: 1.0, norm_type: 1}", "goes with clip_norm or clip_layer_norm"),
    ],
)
def test_what_is_refused(override: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe(None, [override])
