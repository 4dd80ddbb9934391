"""``lr_scaling: carry``, from the recipe to the optimizer: what is kept over the same number of samples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import nn

import disttrain
from disttrain.config import RecipeError, load_recipe
from disttrain.config.sections.carry import LEFT
from disttrain.config.sections.optimizers import Optimizer
from disttrain.errors import InputError
from disttrain.methods.optimizers import make_optimizer
from disttrain.methods.rates import parameter_settings
from disttrain.plan.explain import explain
from disttrain.plan.plan import StepPlan, resolve_plan

EPOCH = 65536
SGD = "name: sgd, momentum: 0.99, weight_decay: 0.002"
ADAMW = "name: adamw, betas: [0.98, 0.999], weight_decay: 0.1"
NOVOGRAD = "name: novograd, betas: [0.98, 0.995], weight_decay: 0.001"


def carried(optimizer: str, batch: int, *more: str, epochs: float = 1) -> StepPlan:
    section = f"optimizer={{lr: 0.01, reference_batch: 64, lr_scaling: carry, {optimizer}}}"
    common = [f"batch.global={batch}", f"epochs={epochs}", "schedule={decay: {kind: constant}}", section]
    return resolve_plan(load_recipe(None, [*common, *more]), EPOCH, 1000, 1)


def pushed(optimizer: str, batch: int, first: float, samples: int) -> float:
    """A weight of 1 after a gradient of ``first``, and zeros for so many samples."""
    recipe = load_recipe(None, [f"optimizer={{lr: 0.01, reference_batch: 64, lr_scaling: carry, {optimizer}}}"])
    model = nn.Linear(1, 1, bias=False).double()
    nn.init.ones_(model.weight)
    settings = parameter_settings(recipe, model, ["weight"])
    made = make_optimizer(recipe, model, carried(optimizer, batch).carried, settings)
    for update in range(samples // batch):
        model.weight.grad = torch.full_like(model.weight, 0.0 if update else first)
        made.step()
    return model.weight.item()


@pytest.mark.parametrize("optimizer", [SGD, ADAMW, NOVOGRAD])
def test_weights_forget_as_much_over_the_same_samples(optimizer: str) -> None:
    samples = 1 << 15
    small = 1.0 - pushed(optimizer, 64, 0.0, samples)
    assert small > 0.02
    assert 1.0 - pushed(optimizer, 256, 0.0, samples) == pytest.approx(small, rel=0.03)
    assert 1.0 - pushed(f"{optimizer}, carry: {{weight_decay: false}}", 256, 0.0, samples) < 0.8 * small or (
        optimizer == SGD  # whose rule keeps its decay
    )


@pytest.mark.parametrize(
    ("optimizer", "factor"), [(SGD, 4.0), (f"{NOVOGRAD}, grad_averaging: true", 2.0), (NOVOGRAD, 2.0)]
)
def test_one_gradient_moves_a_weight_by_the_laws_factor(optimizer: str, factor: float) -> None:
    """All of its effect, however the momentum spreads it over updates."""
    optimizer = optimizer.replace("weight_decay: 0.00", "weight_decay: 0.000000000")
    small, large = (1.0 - pushed(optimizer, batch, 0.1, 1 << 17) for batch in (64, 256))
    assert large == pytest.approx(factor * small, rel=1e-3)


def test_every_part_of_adamw_and_what_show_says() -> None:
    plan = carried(f"{ADAMW}, eps: 1.0e-6", 256)
    found = plan.carried
    assert plan.peak_lr == pytest.approx(0.02)
    assert found.arguments["betas"] == pytest.approx((0.98**4, 0.999**4))
    assert found.arguments["eps"] == pytest.approx(5e-7)
    assert found.decay_factor == pytest.approx(2.0)
    recipe = load_recipe(
        None, [f"optimizer={{lr: 0.01, reference_batch: 64, lr_scaling: carry, eps: 1.0e-6, {ADAMW}}}"]
    )
    lines = {what: (value, why) for what, value, why in explain(recipe, plan)}
    assert lines["peak learning rate"] == ("0.02", "0.01 at batch 64, carried to 4 x the batch")
    assert lines["betas"] == ("0.98, 0.999 -> 0.922368, 0.996006", "the half-life in samples is kept")
    assert lines["weight_decay"][0] == "0.1 -> 0.2"
    assert recipe.optimizer.model_dump()["betas"] == (0.98, 0.999)
    off = ", ".join(f"{part}: false" for part in ("rate", "momentum", "second_moment", "eps", "weight_decay"))
    plain = carried(f"{ADAMW}, carry: {{{off}}}", 256).carried
    assert (plain.lr, dict(plain.arguments), plain.decay_factor) == (0.01, {}, 1.0)
    second = carried(f"{ADAMW}, carry: {{momentum: false}}", 256).carried
    assert second.arguments["betas"] == pytest.approx((0.98, 0.999**4))
    # AdamW's timescale with the rate as it is: the decay follows the batch alone.
    assert carried(f"{ADAMW}, carry: {{rate: false}}", 256).carried.decay_factor == pytest.approx(4.0)
    peaked = carried(f"{ADAMW}, carry: {{noise_batch: 128}}", 256)
    assert peaked.peak_lr == pytest.approx(0.01)  # 64 and 256 lie on both sides of 128
    assert peaked.carried.decay_factor == pytest.approx(4.0)
    # Four times as long at the reference batch: SDE time is lr^2 * updates, and every length a share of the run.
    long = carried(f"{ADAMW}, carry: {{reference_samples: {EPOCH}}}", 64, epochs=4)
    assert long.peak_lr == pytest.approx(0.005)
    assert long.carried.arguments["betas"] == pytest.approx((0.98**0.25, 0.999**0.25))
    assert long.carried.decay_factor == pytest.approx(0.5)


def test_groups_decay_by_the_same_law() -> None:
    section = f"{ADAMW}, groups: [{{parameters: ['bias'], weight_decay: 0.3}}]"
    recipe = load_recipe(None, [f"optimizer={{lr: 0.01, reference_batch: 64, lr_scaling: carry, {section}}}"])
    model = nn.Linear(2, 2)
    settings = parameter_settings(recipe, model, ["weight", "bias"])
    made = make_optimizer(recipe, model, carried(section, 256).carried, settings)
    assert sorted(group["weight_decay"] for group in made.param_groups) == pytest.approx([0.2, 0.6])


@pytest.mark.parametrize(
    ("optimizer", "more", "message"),
    [
        ("name: lars", (), 'got "carry"; expected linear, sqrt, legw, adascale or none'),
        ("name: lamb, carry: {weight_decay: true}", (), "carry.weight_decay does not go with lamb: the trust ratio"),
        ("name: lamb, carry: {noise_batch: 100}", (), "carry.noise_batch does not go with lamb"),
        ("name: sgd, carry: {reference_samples: 9}", (), "carry.reference_samples does not go with sgd"),
        ("name: sgd, larc: {}", (), "no law for larc"),
        ("name: sgd, lr_scaling: sqrt, carry: {}", (), "carry goes with lr_scaling: carry"),
        ("name: sgd, reference_batch: null", (), "lr_scaling: carry needs reference_batch"),
        ("name: sgd", ("batch.growth={kind: linear, end: 512, epochs: 1}",), "does not go with batch.growth"),
        ("name: sgd", ("schedule.warmup={updates: 5}",), "schedule.warmup in updates: give epochs or samples"),
        ("name: sgd", ("average={kind: ema, half_life: {updates: 5}}",), "average.half_life in updates"),
        ("name: sgd", ("schedule={decay: {kind: one_cycle}}",), "one_cycle, which sets the momentum"),
    ],
)
def test_what_cannot_be_carried_is_refused_by_name(optimizer: str, more: tuple[str, ...], message: str) -> None:
    words = {"lr": "0.01", "reference_batch": "64", "lr_scaling": "carry"}
    given = ", ".join(f"{key}: {value}" for key, value in words.items() if f"{key}:" not in optimizer)
    with pytest.raises((InputError, RecipeError), match=message):
        resolve_plan(load_recipe(None, [f"optimizer={{{given}, {optimizer}}}", "epochs=1", *more]), EPOCH, 1000, 1)


def test_what_stays_is_said_of_every_optimizer_that_can_be_carried() -> None:
    sections = [get_args(tagged)[0] for tagged in get_args(get_args(Optimizer)[0])]
    carry = [section for section in sections if "carry" in section.model_fields]
    assert {name for section in carry for name in get_args(section.model_fields["name"].annotation)} == LEFT.keys()
    assert all(section.law is not None for section in carry)


def test_a_run_records_what_it_used_and_saves_what_was_asked_for(tmp_path: Path) -> None:
    recipe = {
        "task": {"name": "synthetic", "train_samples": 256, "test_samples": 16},
        "model": {"name": "mlp", "hidden": [4]},
        "batch": {"global": 128},
        "epochs": 1,
        "optimizer": {"name": "adamw", "lr": 0.01, "reference_batch": 64, "lr_scaling": "carry"},
        "log": {"sinks": []},
    }
    result = disttrain.train(recipe, run_dir=tmp_path / "run", quiet=True)
    used = json.loads((result.run_dir / "environment.jsonl").read_text().splitlines()[0])["plan"]
    assert used["peak_lr"] == pytest.approx(0.01 * 2**0.5)
    assert used["optimizer.betas"] == pytest.approx([0.9**2, 0.999**2])
    assert disttrain.Recipe.load(result.run_dir / "recipe.yaml").optimizer.model_dump()["betas"] == (0.9, 0.999)
