"""A loss that is not one number for each item is refused, by name, wherever it comes in."""

from __future__ import annotations

import re

import pytest
import torch
import torch.nn.functional as F
from training_cases import MakeRun

from disttrain.engine.local import LocalEngine
from disttrain.engine.world import World
from disttrain.errors import InputError
from disttrain.inference.evaluate import evaluate
from disttrain.tasks.make import checked_sizes, load_sets
from disttrain.training.build import make_loader
from disttrain.training.step import check_losses, update

WRONG = {
    "a mean": (lambda x, y: F.cross_entropy(x, y), "a tensor of shape ()"),
    "a sum kept in a vector": (lambda x, y: F.cross_entropy(x, y, reduction="sum").view(1), "a tensor of shape (1,)"),
    "one for each class": (lambda x, y: F.log_softmax(x, 1), "a tensor of shape (32, 10)"),
    "a mean among several": (
        lambda x, y: {"own": F.cross_entropy(x, y, reduction="none"), "other": x.square().mean()},
        "other of shape ()",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_recipe_refuses_it(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    run, (losses, message) = make_run("batch.global=32"), WRONG[name]
    monkeypatch.setattr(run.task, "losses", lambda model, tensors: losses(model(tensors[0]), tensors[1]))
    before = [p.clone() for p in run.params]
    with pytest.raises(
        InputError, match=rf"task digits: losses\(\) gave {re.escape(message)} .*32 samples; expected 32"
    ) as found:
        update(run, next(iter(make_loader(run))), lr=0.1)
    assert found.value.everywhere
    assert all(torch.equal(a, b) for a, b in zip(run.params, before, strict=True))


@pytest.mark.parametrize(("name", "everywhere"), [(name, name != "a sum kept in a vector") for name in WRONG])
def test_a_rank_speaks_for_others_only_where_they_must_fail_too(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, name: str, everywhere: bool
) -> None:
    """A rank with a single sample in its share finds a sum in a vector right."""
    run, (losses, _) = make_run("batch.global=32"), WRONG[name]
    batch = next(iter(make_loader(run)))
    monkeypatch.setattr(run.engine, "world", World(1, 2, 1, 2, 0, torch.device("cpu")))
    inputs = batch.micro_batches[0].tensors
    with pytest.raises(InputError) as found:
        check_losses(
            run, batch.micro_batches[0], losses(run.model(run.task.prepare(inputs, torch.float32)[0]), inputs[1])
        )
    assert found.value.everywhere is everywhere


NO_LOSSES = {
    "None": (lambda x: None, "gave None; expected a tensor, or a dict"),
    "a number": (lambda x: 1.0, "gave a float; expected a tensor, or a dict"),
    "a number among several": (lambda x: {"own": x.sum(1), "other": 0.5}, "gave a dict with other: float; expected"),
    "nothing by name": (lambda x: {}, "gave an empty dict; expected"),
    "a detached one": (lambda x: x.sum(1).detach(), "gave a tensor that does not depend on the model's parameters"),
}


@pytest.mark.parametrize("name", NO_LOSSES)
def test_a_recipe_refuses_what_is_no_loss(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    run, (losses, message) = make_run("batch.global=32"), NO_LOSSES[name]
    monkeypatch.setattr(run.task, "losses", lambda model, tensors: losses(model(tensors[0])))
    with pytest.raises(InputError, match=rf"task digits: losses\(\) {re.escape(message)}") as found:
        update(run, next(iter(make_loader(run))), lr=0.1)
    assert found.value.everywhere


@pytest.mark.parametrize(
    ("total", "kind"), [(1.5, "a float"), (torch.ones(3), "a tensor of shape (3,)")], ids=["a number", "a vector"]
)
def test_sums_of_an_evaluation_are_scalars(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, total: object, kind: str
) -> None:
    run = make_run("batch.global=32")
    monkeypatch.setattr(run.task, "evaluate", lambda model, tensors: {"loss": total})
    with pytest.raises(
        InputError, match=rf"task digits: evaluate\(\) gave {re.escape(kind)} as loss; expected a scalar"
    ):
        evaluate(run)


def test_sizes_are_of_their_class(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run("batch.global=32")
    monkeypatch.setattr(run.task, "sizes", lambda: (1437, 360))
    for look in (load_sets, checked_sizes):
        with pytest.raises(InputError, match=r"task digits: sizes\(\) gave \(1437, 360\); expected .*Sizes"):
            look(run.recipe, run.task)


def test_an_engine_refuses_it() -> None:
    engine = LocalEngine(World(0, 1, 0, 1, 0, torch.device("cpu")))
    w = torch.ones(3, requires_grad=True)
    with pytest.raises(InputError, match=r"shape \(\); expected one number for each item"):
        engine.backward(w.mean())
    with pytest.raises(InputError, match=r"shape \(3,\); expected 4 numbers"):
        engine.backward(w * 2, items=4)
    assert w.grad is None
    engine.backward(w * 2, scale=0.5, items=3)
    assert w.grad is not None
    assert w.grad.tolist() == [1.0, 1.0, 1.0]
