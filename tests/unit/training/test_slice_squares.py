"""What the optimizer of slices is given, against each slice's gradient by itself."""

from __future__ import annotations

import pytest
import torch
from training_cases import MakeRun

from disttrain.config import RecipeError, load_recipe
from disttrain.errors import InputError
from disttrain.nn.facts import ModelFacts
from disttrain.plan.carry import carried
from disttrain.plan.plan import resolve_plan
from disttrain.training.build import make_loader
from disttrain.training.step import update

ADAM = "optimizer={name: batch_invariant_adam, lr: 0.001, slice: 30, reference_batch: 30}"
NET = ["model={name: mlp, hidden: [8]}", "precision=fp64", "batch.global=100"]


def test_the_squares_of_each_slice(make_run: MakeRun) -> None:
    """A batch of 100 has slices of 30, 30, 30 and 10 samples, whose squares count by their samples."""
    run = make_run(*NET, ADAM)
    batch = next(iter(make_loader(run)))
    expected = [torch.zeros_like(p) for p in run.params]
    sizes = []
    for micro in batch:
        sizes.append(len(micro.ids))
        inputs = run.task.prepare(micro.tensors, torch.float64)
        losses = run.task.losses(run.model, inputs)
        assert isinstance(losses, torch.Tensor)
        for total, g in zip(expected, torch.autograd.grad(losses.mean(), run.params), strict=True):
            total += g.square() * len(micro.ids) / 100
    assert sizes == [30, 30, 30, 10]
    for _ in range(2):  # nothing is left of the update before
        update(run, batch, 0.0)
        for p, total in zip(run.params, expected, strict=True):
            torch.testing.assert_close(p.mean_square, total, rtol=1e-10, atol=1e-20)  # type: ignore[attr-defined]
    assert any(bool((total > 1.2 * p.grad.square()).any()) for p, total in zip(run.params, expected, strict=True))  # type: ignore[union-attr]
    run.methods.all.release()
    assert all(p.mean_square is None for p in run.params)  # type: ignore[attr-defined]


def test_a_loss_scale_leaves_them_as_they_are(make_run: MakeRun) -> None:
    found = []
    for scale in (2.0**4, 2.0**12):
        run = make_run("model={name: mlp, hidden: [8]}", "precision=fp16", "batch.global=100", ADAM)
        run.precision.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        assert update(run, next(iter(make_loader(run))), 0.0).applied
        found.append(torch.cat([p.mean_square.flatten() for p in run.params]))  # type: ignore[attr-defined]
    torch.testing.assert_close(found[0], found[1], rtol=1e-2, atol=1e-7)


def test_what_follows_the_batch() -> None:
    recipe = load_recipe(None, ["task.name=digits", "epochs=1", "batch.global=240", ADAM])
    found = carried(recipe, 240, 1000)
    assert found.lr == pytest.approx(0.008)
    assert found.arguments == {"betas": (pytest.approx(0.9**8), pytest.approx(0.999**8))}
    assert found.decay_factor == pytest.approx(1.0)
    with pytest.raises(RecipeError, match=r"carry\.eps does not go with batch_invariant_adam"):
        load_recipe(None, ["task.name=digits", "epochs=1", "batch.global=240", ADAM, "optimizer.carry={eps: true}"])


@pytest.mark.parametrize(
    ("words", "facts", "ranks", "message"),
    [
        (["batch.global=60"], ModelFacts(), 3, "optimizer.slice is 30: the global batch of 60 has 2 such slices, and"),
        (["batch.global=20"], ModelFacts(), 1, "optimizer.slice is 30, and the global batch only 20: choose a slice"),
        (["batch.per_rank_max=20"], ModelFacts(), 1, "optimizer.slice is 30, but at most 20 samples go through"),
        ([], ModelFacts(ghost_size=20), 1, "optimizer.slice is 30, and a slice is made of whole ghosts of 20"),
        (["noise_scale={every_steps: 1, slice: 10}"], ModelFacts(), 1, "optimizer.slice cuts every batch"),
        ([], ModelFacts(over_global_batch=True), 1, "takes its loss over the global batch, which is never cut"),
    ],
)
def test_what_cannot_be_cut(words: list[str], facts: ModelFacts, ranks: int, message: str) -> None:
    recipe = load_recipe(None, ["task.name=digits", "epochs=1", "batch.global=120", ADAM, *words])
    with pytest.raises(InputError, match=message):
        resolve_plan(recipe, 1437, 360, ranks, facts)
