"""What a recipe says of which parameters are trained, when and how quickly, in runs of one process."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from training_cases import MakeRun

from disttrain.checkpoint import Checkpoint, save_checkpoint
from disttrain.config import load_recipe
from disttrain.data.position import Position
from disttrain.errors import DisttrainError, InputError
from disttrain.inference.evaluate import evaluate
from disttrain.methods.rates import parameter_settings
from disttrain.methods.trainable import find_trainable
from disttrain.optim import layer_depths
from disttrain.plan.plan import resolve_plan
from disttrain.plan.stages import stage_at
from disttrain.telemetry import NullSink
from disttrain.training.build import make_loader
from disttrain.training.stages import enter_stage, stage_is_over
from disttrain.training.state import Run
from disttrain.training.step import update

NET = ["model={name: mlp, hidden: [16, 12], norm: batch}", "batch.global=100", "evaluate.train=false"]
SGD = "optimizer={name: sgd, lr: 0.1, momentum: 0.0}"


def steps(run: Run, count: int) -> None:
    stream = iter(make_loader(run))
    for _ in range(count):
        batch = next(stream)
        update(run, batch, run.plan.lr(run.progress.position.samples))
        run.progress.position = run.progress.position.advanced(batch)


def snapshot(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def test_frozen_parts_do_not_move_through_evaluations(make_run: MakeRun) -> None:
    run = make_run(*NET, SGD, "trainable=['head.*', 'body.[56].*']")
    before = snapshot(run.model)
    steps(run, 2)
    evaluate(run)
    steps(run, 2)
    moved = {name for name, tensor in run.model.state_dict().items() if not torch.equal(tensor, before[name])}
    norm = {f"body.6.{name}" for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")}
    # The bias before a batch norm has no gradient but rounding.
    assert moved - {"body.5.bias"} == {"head.weight", "head.bias", "body.5.weight"} | norm
    assert not any(p.grad is not None for p in run.model.parameters() if not p.requires_grad)
    assert len(run.params) == sum(p.requires_grad for p in run.model.parameters()) == 6


def test_a_norm_without_parameters_is_frozen_with_what_is_around_it() -> None:
    model = nn.Sequential(
        nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, affine=False)),
        nn.BatchNorm1d(4, affine=False),
        nn.Linear(4, 2),
    )
    recipe = load_recipe(None, ["trainable=['2.*']"])
    plan = resolve_plan(recipe, 1000, 100, 1)
    find_trainable(recipe, plan.stages, model).choose(model, 0)
    assert [m.training for m in model.modules() if isinstance(m, nn.BatchNorm1d)] == [False, True]
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    find_trainable(load_recipe(None, []), resolve_plan(load_recipe(None, []), 1000, 100, 1).stages, model).choose(
        model, 0
    )
    assert all(m.training for m in model.modules())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trainable=['haed.*']"], r"trainable: no parameter matches 'haed.*'; there are head"),
        (
            ["stages=[{updates: 2, trainable: ['top.*']}, {lr_factor: 0.1}]"],
            r"stages: trainable of stage 1: no parameter matches 'top",
        ),
        (["trainable=[]"], "trainable: expected at least one pattern; an empty list matches nothing"),
        (
            ["stages=[{trainable: ['head.*']}, {lr_factor: 0.1}]"],
            "stages: stage 1 needs a length: exactly one of epochs",
        ),
        (["stages=[{updates: 2, epochs: 1}, {}]"], "got epochs and updates"),
        (
            ["stages=[{updates: 2}, {epochs: 1}]"],
            "stage 2 is the last, which lasts to the end of the run: leave out epochs",
        ),
        (["stages=[{epochs: 0.00001}, {}]"], "no update begins in the 0 samples of stage 1"),
        (["stages=[{updates: 2, optimizer: drop}, {}]"], "stage 1 has no earlier state of the optimizer"),
        (
            ["optimizer={name: sgd, lr: 0.1, lr_scaling: adascale, reference_batch: 50}", "stages=[{updates: 2}, {}]"],
            "stages count samples, and lr_scaling: adascale counts others",
        ),
        (
            ["optimizer.groups=[{parameters: ['haed.*'], lr_factor: 2.0}]"],
            r"optimizer.groups\[0\]: no trained parameter",
        ),
        (["optimizer.groups=[{parameters: ['head.*']}]"], "expected lr_factor, weight_decay or both"),
        (
            ["trainable=['head.*']", "optimizer.groups=[{parameters: ['body.*'], lr_factor: 2.0}]"],
            r"optimizer.groups\[0\]: no trained parameter matches 'body",
        ),
        (["optimizer.layer_decay=0.5"], "optimizer.layer_decay: the model has no numbered blocks"),
        (
            ["optimizer={name: 'torch.optim:Rprop', lr: 0.1, groups: [{parameters: ['head.*'], weight_decay: 0.1}]}"],
            "optimizer.groups: torch.optim:Rprop has no weight_decay",
        ),
        (["start_from={path: nowhere.safetensors}"], "start_from nowhere.safetensors: there is no such file"),
    ],
)
def test_mistakes(make_run: MakeRun, words: list[str], message: str) -> None:
    with pytest.raises(DisttrainError, match=message):
        make_run(*NET, SGD, *words)


def test_a_stage_begins_with_the_first_update_at_or_after_its_start(make_run: MakeRun) -> None:
    run = make_run(
        *NET,
        "optimizer={name: sgd, lr: 0.1, momentum: 0.9}",
        "schedule={decay: {kind: constant}}",
        "stages=[{samples: 250, trainable: ['head.*']}, {lr_factor: 0.5, warmup: {samples: 400}}]",
    )
    assert [stage.start for stage in run.plan.stages] == [0, 250]
    assert [stage_at(run.plan.stages, s) for s in (0, 200, 249, 250, 300, 10**6)] == [0, 0, 0, 1, 1, 1]
    assert [round(run.plan.lr(s), 6) for s in (0, 200, 250, 300, 450, 650, 10000)] == [
        0.1,
        0.1,
        0,
        0.00625,
        0.025,
        0.05,
        0.05,
    ]
    steps(run, 2)
    assert not stage_is_over(run)
    steps(run, 1)
    assert stage_is_over(run)
    kept = run.optimizer.state[run.model.head.weight]["momentum_buffer"]
    enter_stage(run, NullSink())
    assert not stage_is_over(run)
    assert run.optimizer.state[run.model.head.weight]["momentum_buffer"] is kept
    assert len(run.optimizer.state) == 2
    before = snapshot(run.model)
    steps(run, 1)
    assert not torch.equal(run.model.state_dict()["body.1.weight"], before["body.1.weight"])


def test_dropped_state_is_dropped_and_hooks_go(make_run: MakeRun) -> None:
    run = make_run(
        *NET,
        "model.hidden=[1000]",  # a hook watches a large gradient
        "optimizer={name: adamw, lr: 0.01}",
        "batch.per_rank_max=50",
        "noise_scale={every_steps: 1}",
        "stages=[{updates: 2, trainable: ['head.*']}, {optimizer: drop}]",
    )
    steps(run, 2)
    assert run.methods.noise_scale.estimate.count == 2
    enter_stage(run, NullSink())
    assert not run.optimizer.state
    assert run.methods.noise_scale.estimate.count == 0
    steps(run, 1)
    assert run.methods.noise_scale.estimate.count == 1
    assert len(run.model.head.weight._backward_hooks or {}) == 1


def test_an_average_goes_through_the_stages(make_run: MakeRun) -> None:
    """Against float64: d * average + (1 - d) * weights, of all that some stage trains."""
    run = make_run(
        *NET, SGD, "precision=fp64", "average={kind: ema, half_life: {samples: 200}}",
        "stages=[{updates: 2, trainable: ['head.*']}, {}]",
    )  # fmt: skip
    named = dict(run.model.named_parameters())
    expected = {name: p.detach().numpy().copy() for name, p in named.items()}
    for _ in range(4):
        steps(run, 1)
        for name, value in expected.items():
            value += (1 - 0.5 ** (100 / 200)) * (named[name].detach().numpy() - value)
        if stage_is_over(run):
            enter_stage(run, NullSink())
    found = run.methods.all.state_dict()["average"]["weights"]
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name].numpy(), value, rtol=1e-13, atol=1e-15)


def test_groups_and_factors_are_applied_by_the_update(make_run: MakeRun) -> None:
    """One update of SGD with decay against numpy: w - lr * factor * (g + decay * w)."""
    run = make_run(
        "model={name: mlp, hidden: [8]}", "batch.global=100", "precision=fp64",
        "optimizer={name: sgd, lr: 0.1, momentum: 0.0, weight_decay: 0.01, groups: ["
        "{parameters: ['*.bias'], weight_decay: 0.0}, {parameters: ['head.*'], lr_factor: 10.0, weight_decay: 0.5}]}",
    )  # fmt: skip
    before = {name: p.detach().numpy().copy() for name, p in run.model.named_parameters()}
    update(run, next(iter(make_loader(run))), 0.1)
    rule = {
        "head.weight": (10.0, 0.5),
        "head.bias": (10.0, 0.0),
        "body.1.weight": (1.0, 0.01),
        "body.1.bias": (1.0, 0.0),
    }
    assert rule.keys() == before.keys()
    for name, p in run.model.named_parameters():
        factor, decay = rule[name]
        assert p.grad is not None
        expected = before[name] - 0.1 * factor * (p.grad.numpy() + decay * before[name])
        np.testing.assert_allclose(p.detach().numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("name", ["lars", "lamb", "novograd", "muon", "adamw", "rmsprop"])
def test_every_optimizer_moves_by_the_factor(make_run: MakeRun, name: str) -> None:
    """The first step of each is proportional to its rate, so three times the factor is three times the way."""
    moved = []
    for factor in (1.0, 3.0):
        run = make_run(
            "model={name: mlp, hidden: [8]}", "batch.global=100", "precision=fp64",
            f"optimizer={{name: {name}, lr: 0.001, groups: [{{parameters: ['head.*'], lr_factor: {factor}}}]}}",
        )  # fmt: skip
        before = snapshot(run.model)
        update(run, next(iter(make_loader(run))), 0.001)
        moved.append({key: tensor - before[key] for key, tensor in run.model.state_dict().items()})
    for key in moved[0]:
        torch.testing.assert_close(moved[1][key], (3.0 if key.startswith("head") else 1.0) * moved[0][key])


def test_layer_decay_of_a_transformer(make_run: MakeRun) -> None:
    """BEiT's rule, in its own words: decay ** (layers + 1 - id), embeddings 0, block i i + 1, the rest layers + 1."""
    recipe = load_recipe(None, ["optimizer={name: adamw, lr: 0.1, layer_decay: 0.5}"])
    block = nn.TransformerEncoderLayer
    model = nn.ModuleDict(
        {
            "embeddings": nn.Embedding(3, 4),
            "blocks": nn.ModuleList([block(4, 2), block(4, 2), block(4, 2)]),
            "norm": nn.LayerNorm(4),
            "head": nn.Linear(4, 2),
        }
    )
    settings = parameter_settings(recipe, model, [name for name, _ in model.named_parameters()])
    rates = {name: own["lr_factor"] for name, own in settings.items()}
    assert rates["embeddings.weight"] == 0.5**4
    assert [rates[f"blocks.{i}.linear1.weight"] for i in range(3)] == [0.5**3, 0.5**2, 0.5]
    assert rates["norm.weight"] == rates["head.bias"] == 1.0
    run = make_run("model=null", "task={name: digits}", *NET, SGD)
    assert {group["lr_factor"] for group in run.optimizer.param_groups} == {1.0}


def test_depth_of_other_models() -> None:
    """Lists of lists, a single block in a list, blocks of several kinds, a head that is a list of layers."""
    from disttrain.models.resnet import resnet18

    depths, head = layer_depths(resnet18(in_shape=(3, 32, 32), num_classes=10))
    assert head == 9
    blocks = {name: depth for name, depth in depths.items() if 0 < depth < head}
    assert sorted(set(blocks.values())) == list(range(1, 9))
    assert {name.split(".")[0] for name, depth in depths.items() if depth == head} <= {"head", "fc", "classifier"}
    attention = lambda: nn.MultiheadAttention(2, 1)  # noqa: E731
    model = nn.ModuleDict(
        {
            "encoder": nn.ModuleList([attention(), attention()]),
            "between": nn.Linear(2, 2),
            "decoder": nn.Sequential(attention()),
            "head": nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)),
        }
    )
    depths, head = layer_depths(model)
    assert (depths["between.weight"], depths["decoder.0.in_proj_weight"], depths["head.2.bias"], head) == (2, 3, 4, 4)
    with pytest.raises(ValueError, match="no numbered blocks"):
        layer_depths(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)))


def test_a_run_is_begun_from_its_newest_best_or_average(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(*NET, SGD)
    weights = {step: {name: tensor + step for name, tensor in snapshot(run.model).items()} for step in (1, 2)}
    for step in (1, 2):
        progress = {"best_step": 1, "position": Position().to_dict()}
        average = {"weights": {"head.bias": torch.full_like(weights[2]["head.bias"], 7.0)}}
        state = {"progress": progress, "methods": {"average": average}}
        save_checkpoint(tmp_path, Checkpoint(step, weights[step], state), keep=5)
    for which, expected in (("newest", weights[2]), ("best", weights[1])):
        run = make_run(*NET, SGD, f"start_from={{path: {tmp_path}, which: {which}}}")
        assert torch.equal(run.model.state_dict()["head.bias"], expected["head.bias"])
    run = make_run(*NET, SGD, f"start_from={{path: {tmp_path}, which: average}}")
    assert run.model.state_dict()["head.bias"].tolist() == [7.0] * 10
    assert torch.equal(run.model.state_dict()["head.weight"], weights[2]["head.weight"])
    assert run.notes[0]["event"] == "start_from"
    run = make_run(*NET, SGD, f"start_from={tmp_path}")
    assert torch.equal(run.model.state_dict()["head.weight"], weights[2]["head.weight"])
    with pytest.raises(InputError, match=r"2 unexpected|of another shape"):
        make_run("model={name: mlp, hidden: [16]}", SGD, f"start_from={tmp_path}")
