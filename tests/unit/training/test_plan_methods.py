"""Plans of recipes with ghosts, growth, regime adaptation and the scaling rules."""

from __future__ import annotations

import pytest

from disttrain.config import load_recipe
from disttrain.errors import InputError
from disttrain.methods.model import facts_of
from disttrain.plan.plan import StepPlan, resolve_plan
from disttrain.tasks.synthetic import Synthetic


def plan(*overrides: str, ranks: int = 1, train: int = 60000) -> StepPlan:
    common = ["batch.global=512", "epochs=3", "schedule={decay: {kind: constant}}", "evaluate={epochs: 1}"]
    recipe = load_recipe(None, ["model={name: convnet, norm: batch}", *common, *overrides])
    return resolve_plan(recipe, train, 10000, ranks, facts_of(recipe, Images()))


class Images(Synthetic):
    """Knows shapes, has no data."""

    def __init__(self) -> None:
        super().__init__(shape=[1, 28, 28], classes=10)


GHOSTS = "batch_norm={kind: ghost, ghost_size: 32, stats_update: mean}"


def test_ghosts_are_never_split() -> None:
    found = plan(GHOSTS, "batch.per_rank_max=100", ranks=3)
    assert found.ghost_size == 32
    assert found.share == (160, 192)  # 5, 5 and 6 of 16 ghosts
    assert (found.accumulation, found.micro_batch) == (2, 96)


def test_ghosts_that_do_not_fit_are_refused_with_numbers_that_would() -> None:
    with pytest.raises(InputError, match="ghost_size of at most 16, or a larger micro-batch"):
        plan(GHOSTS, "batch.per_rank_max=16")
    with pytest.raises(InputError, match="at most 25, a global batch of at least 640, or at most 16 ranks"):
        plan(GHOSTS, ranks=20)


def test_regime_adaptation_keeps_the_number_of_updates() -> None:
    small = plan("batch.global=64", train=6400)
    large = plan("batch.global=512", "optimizer.reference_batch=64", "schedule.regime_adaptation=true", train=512 * 12)
    assert large.total_updates == 3 * 12 * 8
    assert small.total_updates == 3 * 100
    with pytest.raises(InputError, match="regime_adaptation needs optimizer"):
        plan("optimizer.reference_batch=null", "schedule.regime_adaptation=true")


def test_regime_adaptation_stretches_warmup_and_milestones_but_not_evaluation() -> None:
    found = plan(
        "optimizer={name: sgd, lr: 0.1, reference_batch: 128, lr_scaling: sqrt}",
        "schedule={warmup: {epochs: 1}, decay: {kind: multistep, milestones: {epochs: [2]}}, regime_adaptation: true}",
    )
    assert found.peak_lr == pytest.approx(0.2)
    assert found.warmup_samples == 4 * 60000
    assert found.lr(8 * 60000 - 1) == pytest.approx(0.2)
    assert found.lr(8 * 60000) == pytest.approx(0.02)
    assert found.evaluate_every == 60000


def test_gradual_warmup_starts_at_the_base_rate() -> None:
    found = plan(
        "optimizer={name: sgd, lr: 0.1, reference_batch: 256}", "schedule={warmup: {kind: gradual, epochs: 1}}"
    )
    assert found.lr(0) == pytest.approx(0.1)
    assert found.lr(30000) == pytest.approx(0.15)
    assert found.lr(60000) == pytest.approx(0.2)


def test_legw_makes_the_warmup_longer() -> None:
    found = plan(
        "optimizer={name: adamw, lr: 0.1, reference_batch: 128, lr_scaling: legw}", "schedule={warmup: {epochs: 0.5}}"
    )
    assert found.peak_lr == pytest.approx(0.2)
    assert found.warmup_samples == 4 * 30000


def test_a_batch_that_grows_where_the_rate_would_decay() -> None:
    """Smith et al.: at all times learning rate / batch is what it would be without growth."""
    steps = "schedule={decay: {kind: multistep, milestones: {epochs: [1, 2]}, gamma: 0.1}}"
    plain = plan("optimizer={name: sgd, lr: 0.1}", steps)
    grown = plan("optimizer={name: sgd, lr: 0.1}", steps, "batch.growth={kind: instead_of_decay, max: 8192}")
    assert [grown.batch_at(s) for s in (0, 59999, 60000, 120000)] == [512, 512, 5120, 8192]
    assert grown.largest_batch == 8192
    for s in (0, 59999, 60000, 119999, 120000, 170000):
        assert grown.lr(s) / grown.batch_at(s) == pytest.approx(plain.lr(s) / 512)
    assert grown.lr(60000) == pytest.approx(0.1)
    assert grown.lr(120000) == pytest.approx(0.1 * 0.01 * 8192 / 512)
    # 118 updates of 512, 12 of 5120, 8 of 8192
    assert grown.total_updates == 118 + 12 + 8
    assert grown.micro_batch == 512  # a larger batch takes more micro-batches, not more memory


def test_growth_may_keep_the_rate_over_the_root_of_the_batch() -> None:
    """Seesaw: the same batches, and a learning rate that falls by the root of the decay until the cap is reached."""
    steps = "schedule={decay: {kind: multistep, milestones: {epochs: [1, 2]}, gamma: 0.1}}"
    law = "batch.growth={kind: instead_of_decay, max: 8192, keep: lr_over_sqrt_batch}"
    recipe = ("optimizer={name: adamw, lr: 0.1}", steps)
    plain, grown = plan(*recipe), plan(*recipe, law)
    assert [grown.batch_at(s) for s in (0, 59999, 60000, 120000)] == [512, 512, 5120, 8192]
    for s in (0, 59999, 60000, 119999, 120000, 170000):
        assert grown.lr(s) / grown.batch_at(s) ** 0.5 == pytest.approx(plain.lr(s) / 512**0.5)
    assert grown.lr(60000) == pytest.approx(0.1 * 0.1**0.5)
    assert grown.lr(120000) == pytest.approx(0.1 * 0.01 * 4)
    assert grown.total_updates == 118 + 12 + 8


def test_stages_and_ramps_only_grow() -> None:
    staged = plan("batch.growth={kind: stages, stages: [{epochs: 1, batch: 1024}, {epochs: 2, batch: 4096}]}")
    assert [staged.batch_at(s) for s in (0, 60000, 120000)] == [512, 1024, 4096]
    ramp = plan("batch.growth={kind: linear, end: 1024, epochs: 1, multiple_of: 128}")
    assert ramp.batch_at(0) == 512
    assert ramp.batch_at(60000) == 1024
    assert all(ramp.batch_at(s) % 128 == 0 for s in range(0, 60000, 997))
    with pytest.raises(InputError, match="smaller than batch"):
        plan("batch.growth={kind: linear, end: 256, epochs: 1}")
    with pytest.raises(InputError, match="stages and batches must increase"):
        plan("batch.growth={kind: stages, stages: [{epochs: 2, batch: 1024}, {epochs: 1, batch: 4096}]}")
    with pytest.raises(InputError, match="give epochs or samples"):
        plan("batch.growth={kind: stages, stages: [{updates: 2, batch: 1024}]}")
    with pytest.raises(InputError, match="instead_of_decay goes with"):
        plan("batch.growth={kind: instead_of_decay, max: 8192}")


def test_a_late_switch_is_one_stage_at_a_share_of_the_run() -> None:
    late = plan("batch.growth={kind: late, batch: 4096, share: 0.25}")
    assert [late.batch_at(s) for s in (0, 134999, 135000, 179999)] == [512, 512, 4096, 4096]
    assert (late.global_batch, late.largest_batch) == (512, 4096)
    with pytest.raises(InputError, match="smaller than batch"):
        plan("batch.growth={kind: late, batch: 256}")
    with pytest.raises(InputError, match="give the run's length in epochs or samples"):
        plan("batch.growth={kind: late, batch: 1024}", "epochs=null", "updates=100")


def test_wsd_decays_at_the_end_of_the_run_whatever_its_length_is_given_in() -> None:
    def rates(*overrides: str) -> list[float]:
        found = plan("optimizer={name: sgd, lr: 0.1}", *overrides)
        return [round(found.lr(s), 9) for s in (0, 30000, 90000, 120000, 150000, 180000)]

    warm = "schedule={warmup: {epochs: 1}, decay: {kind: wsd, "
    expected = [0.0, 0.05, 0.1, 0.1, 0.05, 0.0]
    assert rates(warm + "length: {epochs: 1}}}") == expected
    assert rates(warm + "share: 0.333333333333}}") == expected
    assert rates(warm + "length: {updates: 118}}}") == expected  # an epoch
    assert rates(warm + "share: 0.5, end: 0.1, shape: exponential}}")[3:] == pytest.approx(
        [0.1 * 0.1 ** (k / 3) for k in (1, 2, 3)]
    )
    # Where it falls, the batch may grow instead.
    grown = plan(
        "optimizer={name: sgd, lr: 0.1}", warm + "share: 0.5}}", "batch.growth={kind: instead_of_decay, max: 1024}"
    )
    assert [grown.batch_at(s) for s in (0, 90000, 120000, 135000, 179000)] == [512, 512, 768, 1024, 1024]
    with pytest.raises(InputError, match="a decay of 144,000 samples does not fit into the 120,000"):
        plan(warm + "share: 0.8}}")


def test_one_cycle_turns_momentum_the_other_way() -> None:
    found = plan("optimizer={name: sgd, lr: 0.1}", "schedule={decay: {kind: one_cycle, rise: 0.25}}")
    assert found.momentum is not None
    top = found.total_samples * 0.25
    assert found.lr(top) == pytest.approx(0.1)
    assert found.momentum(top) == pytest.approx(0.85)
    assert found.momentum(0) == pytest.approx(0.95)
    assert found.lr(0) == pytest.approx(0.004)


def test_synchronised_batch_norm_needs_every_rank_once() -> None:
    assert plan("batch_norm={kind: sync}", ranks=4).accumulation == 1
    with pytest.raises(InputError, match="accumulates 2 of them"):
        plan("batch_norm={kind: sync}", "batch.per_rank_max=256")
    with pytest.raises(InputError, match="the global batch has fewer"):
        plan("batch_norm={kind: sync}", "batch.global=2", ranks=4)
    with pytest.raises(InputError, match=r"the last batch has fewer: use a larger batch, or batch\.last: drop"):
        plan("batch_norm={kind: sync}", ranks=4, train=512 * 5 + 3)


def test_what_the_recipe_makes_depend_on_the_ranks_is_said() -> None:
    adascale = "optimizer={name: sgd, lr: 0.1, lr_scaling: adascale, reference_batch: 64}"
    sliced = "noise_scale={every_steps: 1, slice: 32}"
    for overrides, said in (
        (
            ["optimizer={name: muon, lr: 0.01, reference_batch: 64, newton_schulz: bf16}"],
            "optimizer.newton_schulz bf16, ",
        ),
        (["optimizer={name: muon, lr: 0.01, reference_batch: 64}"], ""),
        ([adascale], "optimizer.lr_scaling adascale, "),
        ([adascale, sliced], ""),
        (["communication.compression=bf16"], "communication.compression bf16"),
    ):
        assert "; ".join(plan(GHOSTS, *overrides).rank_dependent)[: len(said) or None] == said, overrides
