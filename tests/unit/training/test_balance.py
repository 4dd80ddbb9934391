"""Weights of several losses, against the same training written out in plain torch."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from training_cases import MakeRun

from disttrain.config import load_recipe
from disttrain.errors import CheckpointError, InputError
from disttrain.training.build import make_loader
from disttrain.training.rehearse import rehearse
from disttrain.training.step import update
from tests.unit.checkpoint.checkpoint_cases import same

TWO = [
    "task.name=tests.two_losses:DigitAndInk",
    "model.name=tests.two_losses:TwoHeads",
    "optimizer={name: sgd, lr: 0.01, momentum: 0.0}",
    "precision=fp64",
    "batch.global=101",
]
UNCERTAINTY = "loss.balance={kind: uncertainty, lr: 0.1}"
GRADNORM = "loss.balance={kind: gradnorm, parameters: ['body.3.*'], alpha: 0.5, lr: 0.02}"
NAMES = ["ink", "label"]
UPDATES = 8
LR = 0.01


def terms(model: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """(2,) mean losses in the order of NAMES."""
    logits, ink = model(images)
    squares = 10 * (ink[:, 0] - images.flatten(1).mean(1)).square()
    return torch.stack([squares.mean(), F.cross_entropy(logits, labels)])


def uncertainty_by_hand(model: torch.nn.Module, batches: list[Any]) -> list[torch.Tensor]:
    s = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([s], lr=0.1)
    found = []
    for images, labels in batches:
        losses = terms(model, images, labels)
        found.append(torch.exp(-s.detach()))
        gradients = torch.autograd.grad((found[-1] * losses).sum(), list(model.parameters()))
        s.grad = 0.5 - torch.exp(-s.detach()) * losses.detach()
        adam.step()
        with torch.no_grad():
            for p, g in zip(model.parameters(), gradients, strict=True):
                p -= LR * g
    return [*found, torch.exp(-s.detach())]


def gradnorm_by_hand(model: torch.nn.Module, batches: list[Any]) -> list[torch.Tensor]:
    """Algorithm 1 with its loss differentiated by autograd."""
    w, first, found = torch.ones(2, dtype=torch.float64), None, []
    shared = [model.body[3].weight, model.body[3].bias]
    for images, labels in batches:
        losses = terms(model, images, labels)
        first = losses.detach() if first is None else first
        found.append(w)
        norms = torch.stack(
            [
                torch.cat([g.flatten() for g in torch.autograd.grad(loss, shared, retain_graph=True)]).norm()
                for loss in losses
            ]
        )
        gradients = torch.autograd.grad((w * losses).sum(), list(model.parameters()))
        v = w.clone().requires_grad_()
        sizes = v * norms
        ratio = losses.detach() / first
        target = (sizes.mean() * (ratio / ratio.mean()) ** 0.5).detach()
        (slope,) = torch.autograd.grad((sizes - target).abs().sum(), v)
        w = w - 0.02 * slope
        w = 2 * w / w.sum()
        with torch.no_grad():
            for p, g in zip(model.parameters(), gradients, strict=True):
                p -= LR * g
    return [*found, w]


@pytest.mark.parametrize(("balance", "by_hand"), [(UNCERTAINTY, uncertainty_by_hand), (GRADNORM, gradnorm_by_hand)])
@pytest.mark.parametrize("per_rank_max", ["null", "30"])
def test_weights_learn_as_their_papers_say(make_run: MakeRun, balance: str, by_hand: Any, per_rank_max: str) -> None:
    run = make_run(*TWO, balance, f"batch.per_rank_max={per_rank_max}", "noise_scale=null")
    model = copy.deepcopy(run.model)
    stream = iter(make_loader(run))
    given = [next(stream) for _ in range(UPDATES)]
    data = run.task.train_dataset()
    batches = []
    for batch in given:
        images, labels = data.gather(batch.ids, batch.epoch)
        batches.append((images.double(), labels))
    expected = by_hand(model, batches)
    rehearse(run, given[0])
    for i, batch in enumerate(given):
        update(run, batch, LR)
        torch.testing.assert_close(run.methods.loss_weights.weights(), expected[i + 1], rtol=1e-10, atol=0)
        report = run.methods.loss_weights.report()()
        assert list(report["losses"]) == list(report["loss_weights"]) == NAMES
    assert float((expected[-1] - 1).abs().max()) > 0.05  # it did learn
    for (name, a), b in zip(run.model.named_parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-13, msg=name)


@pytest.mark.parametrize("balance", [UNCERTAINTY, GRADNORM])
def test_what_was_learned_is_taken_up_again(make_run: MakeRun, balance: str) -> None:
    run = make_run(*TWO, balance)
    stream = iter(make_loader(run))
    first, second = next(stream), next(stream)
    update(run, first, LR)
    state, weights = copy.deepcopy(run.state_dict()), copy.deepcopy(run.model.state_dict())
    update(run, second, LR)
    other = make_run(*TWO, balance)
    other.model.load_state_dict(weights)
    other.load_state_dict(state)
    update(other, second, LR)
    assert same(other.methods.loss_weights.state_dict(), run.methods.loss_weights.state_dict())
    mixed = make_run(*TWO, GRADNORM if balance == UNCERTAINTY else UNCERTAINTY)
    with pytest.raises(CheckpointError, match="the checkpoint's methods cannot be continued"):
        mixed.load_state_dict(state)


@pytest.mark.parametrize(
    ("balance", "path", "value"),
    [
        (UNCERTAINTY, ("names", 1), 3),
        (UNCERTAINTY, ("adam", "state", 0, "exp_avg"), True),
        (UNCERTAINTY, ("adam", "state", 0, "exp_avg_sq"), torch.zeros(3)),
        (UNCERTAINTY, ("adam", "state", 0, "step"), torch.tensor(True)),
        (GRADNORM, ("gradnorm", "weights"), [1.0, 1.0, 1.0]),
        (GRADNORM, ("gradnorm", "first"), [1.0]),
        (GRADNORM, ("gradnorm", "weights"), [1.0, float("nan")]),
    ],
)
def test_weights_that_were_altered_are_refused(
    make_run: MakeRun, balance: str, path: tuple[Any, ...], value: Any
) -> None:
    run = make_run(*TWO, balance)
    update(run, next(iter(make_loader(run))), LR)
    state = copy.deepcopy(run.state_dict())
    inner = state["methods"]["loss_weights"]
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    with pytest.raises(CheckpointError, match="methods cannot be continued"):
        make_run(*TWO, balance).load_state_dict(state)


def test_gradnorm_does_not_disturb_the_noise_scale(make_run: MakeRun) -> None:
    """With a step of nearly zero the run is that of fixed weights, and so must be what the meter measured."""
    found = []
    for balance in ("loss.weights={label: 1.0, ink: 1.0}", GRADNORM.replace("lr: 0.02", "lr: 1.0e-300")):
        run = make_run(*TWO, balance, "batch.per_rank_max=30", "noise_scale={every_steps: 1}")
        stream = iter(make_loader(run))
        for _ in range(3):
            update(run, next(stream), LR)
        found.append(run.methods.noise_scale.estimate.value)
    assert found[0] == pytest.approx(found[1], rel=1e-12)


def test_what_is_refused(make_run: MakeRun) -> None:
    run = make_run(UNCERTAINTY)
    with pytest.raises(InputError, match="single loss"):
        update(run, next(iter(make_loader(run))), LR)
    with pytest.raises(InputError, match=r"loss\.balance: no trained parameter matches 'trunk"):
        make_run(*TWO, GRADNORM.replace("body.3", "trunk"))
    with pytest.raises(InputError, match="leave out either weights"):
        load_recipe(None, [*TWO, UNCERTAINTY, "loss.weights={label: 1.0, ink: 1.0}"])
    run = make_run(*TWO, "loss.weights={label: 1.0, inc: 1.0}")
    with pytest.raises(InputError, match=r"loss\.weights has inc, label; this task's losses are ink, label"):
        update(run, next(iter(make_loader(run))), LR)


@pytest.mark.parametrize("balance", ["loss.weights=null", UNCERTAINTY])
def test_losses_that_change_are_refused(make_run: MakeRun, balance: str) -> None:
    run = make_run(*TWO, balance)
    one = torch.ones(3)
    run.methods.loss_weights.combine({"label": one, "ink": one}, 1 / 3)
    with pytest.raises(InputError, match="losses were ink, label and are now label; expected the same in every batch"):
        run.methods.loss_weights.combine({"label": one}, 1 / 3)


def test_fixed_weights(make_run: MakeRun) -> None:
    run = make_run(*TWO, "loss.weights={label: 0.5, ink: 0.25}")
    model, batch = copy.deepcopy(run.model), next(iter(make_loader(run)))
    images, labels = run.task.train_dataset().gather(batch.ids, batch.epoch)
    loss = (torch.tensor([0.25, 0.5]) * terms(model, images.double(), labels)).sum()
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    result = update(run, batch, LR)
    assert float(result.loss()) == pytest.approx(loss.item(), rel=1e-12)
    means = terms(model, images.double(), labels).tolist()
    assert run.methods.loss_weights.report()()["losses"] == pytest.approx(
        dict(zip(NAMES, means, strict=True)), rel=1e-12
    )
    for p, before, g in zip(run.model.parameters(), model.parameters(), gradients, strict=True):
        torch.testing.assert_close(p, before - LR * g, rtol=1e-10, atol=1e-13)
