"""The noise scale of gradients whose noise is known."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
from scipy import stats

from disttrain.checkpoint.fit import check_form
from disttrain.grads import NoiseEstimate, NoiseScale, cost_of, efficiency, noise_scale_moments, noise_words
from disttrain.grads.noise_blocks import MOST_BLOCKS, WHOLE_EPOCHS, Block
from disttrain.grads.noise_interval import noise_estimate
from disttrain.grads.student import student_quantile

BIG = {"small_batch": 16, "big_batch": 64}


def feed(
    estimate: NoiseScale, readings: int, mean: float, *, seed: int = 3, per_epoch: int | None = None
) -> tuple[float, float]:
    """Means over 4 parts of 16 samples of gradients ~ N(mu, Sigma); returns their |mu|^2 and tr(Sigma)."""
    generator = np.random.default_rng(seed)
    mu, spread = np.full(20, mean), np.linspace(0.5, 4.0, 20)
    for i in range(readings):
        parts = mu + generator.normal(size=(4, 20)) * spread / np.sqrt(16)
        small, big = (parts**2).sum(1).mean(), (parts.mean(0) ** 2).sum()
        estimate.update(float(small), float(big), **BIG, epoch=None if per_epoch is None else i // per_epoch)
    return float((mu**2).sum()), float((spread**2).sum())


def blocks(squares: list[float], traces: list[float], weights: list[float] | None = None) -> list[Block]:
    weights = weights or [1.0] * len(squares)
    return [Block(1, w, w * s, w * t, -1, -1) for s, t, w in zip(squares, traces, weights, strict=True)]


def test_it_recovers_what_was_put_in() -> None:
    estimate = NoiseScale()
    square, trace = feed(estimate, 4000, 0.1)
    found = estimate.estimate()
    assert (found.square_norm, found.trace) == (estimate.square_norm, estimate.trace)
    assert found.trace == pytest.approx(trace, rel=0.05)
    assert found.value == estimate.value == pytest.approx(trace / square, rel=0.4)
    assert found.low < trace / square < found.high
    assert found.reason == ""
    assert 1500 < found.readings <= estimate.count == 4000


def test_memory_follows_what_is_needed() -> None:
    """A clear gradient is told from 64 readings; a faint one needs many; and where it becomes clear, memory shrinks again."""
    clear, faint = NoiseScale(), NoiseScale()
    feed(clear, 1000, 1.0)
    feed(faint, 1000, 0.02)
    assert clear.estimate().readings == MOST_BLOCKS
    assert faint.estimate().readings == 1000
    feed(faint, 4000, 3.0)
    assert faint.estimate().readings < 400


def test_of_a_train_set_the_mean_over_all_batches_is_exact() -> None:
    """Every batch of 4 out of 7 samples in every order of cutting it in two: the average reading is |G_N|^2 and tr, N - 1."""
    gradients = np.random.default_rng(0).normal(size=(7, 3)) + 0.3
    found = []
    for ids in itertools.permutations(range(7), 4):
        parts = gradients[list(ids)].reshape(2, 2, 3).mean(1)
        small, big = (parts**2).sum(1).mean(), (parts.mean(0) ** 2).sum()
        found.append(noise_scale_moments(float(small), float(big), 2, 4, population=7))
    exact = (gradients.mean(0) ** 2).sum(), gradients.var(0, ddof=1).sum()
    assert np.mean(found, axis=0) == pytest.approx(exact, rel=1e-12)


def test_of_independent_draws_likewise() -> None:
    gradients = np.random.default_rng(1).normal(size=(5, 3)) + 0.3
    found = []
    for ids in itertools.product(range(5), repeat=4):
        parts = gradients[list(ids)].reshape(2, 2, 3).mean(1)
        small, big = (parts**2).sum(1).mean(), (parts.mean(0) ** 2).sum()
        found.append(noise_scale_moments(float(small), float(big), 2, 4))
    exact = (gradients.mean(0) ** 2).sum(), gradients.var(0).sum()
    assert np.mean(found, axis=0) == pytest.approx(exact, rel=1e-12)


def test_the_form_for_equal_parts_is_the_same() -> None:
    """AdaScale's (Johnson et al. 2020, section 3.3), for four parts: ``(L - T) 4 / 3`` and ``T`` less a fourth of it."""
    square, trace = noise_scale_moments(5.0, 2.0, small_batch=16, big_batch=64)
    assert trace / 16 == pytest.approx((5.0 - 2.0) * 4 / 3)
    assert square == pytest.approx(2.0 - trace / 64)


def test_one_reading_stands_by_itself_and_negative_ones_say_nothing() -> None:
    estimate = NoiseScale()
    assert estimate.value is None
    assert (estimate.square_norm, estimate.trace) == (0.0, 0.0)
    assert estimate.estimate() == NoiseEstimate(None, 0.0, math.inf, 0.0, 0.0, 0, 0.95, "there are no readings yet")
    estimate.update(5.0, 2.0, **BIG)
    assert (estimate.square_norm, estimate.trace) == pytest.approx(noise_scale_moments(5.0, 2.0, 16, 64))
    assert "8 readings, and there are 1" in estimate.estimate().reason
    negative = NoiseScale()
    negative.update(5.0, 0.1, **BIG)
    assert negative.square_norm < 0
    assert negative.value is None


def test_the_interval_holds_where_a_paired_t_test_does() -> None:
    """Each end is where the mean of ``trace - end * square`` is significant at the level: scipy's own test says so."""
    generator = np.random.default_rng(5)
    square, trace = generator.normal(3.0, 2.0, 30), generator.gamma(2.0, 100.0, 30)
    found = noise_estimate(blocks(list(square), list(trace)), 0.9)
    for end in (found.low, found.high):
        assert stats.ttest_1samp(trace - end * square, 0.0).pvalue == pytest.approx(0.1, abs=1e-9)
    assert found.low < trace.mean() / square.mean() < found.high


def test_where_there_is_no_upper_end_the_lower_has_a_third_of_the_tail() -> None:
    generator = np.random.default_rng(6)
    square, trace = generator.normal(0.2, 2.0, 30), generator.gamma(2.0, 100.0, 30)
    found = noise_estimate(blocks(list(square), list(trace)), 0.95)
    assert found.high == math.inf
    assert found.value == pytest.approx(trace.mean() / square.mean())
    assert "do not tell the mean gradient from none" in found.reason
    assert stats.ttest_1samp(trace - found.low * square, 0.0, alternative="greater").pvalue == pytest.approx(0.05 / 3)
    below = noise_estimate(blocks(list(square - 3.0), list(trace)), 0.95)  # even the upper end of |G|^2 is negative
    assert below.value is None
    assert below.high == math.inf
    assert 0.0 < below.low < math.inf


def test_readings_count_as_their_batches_do() -> None:
    square, trace = [1.0, 2.0, 4.0] * 3, [9.0, 5.0, 8.0] * 3
    mixed = noise_estimate(blocks(square, trace, [1.0, 2.0, 1.0] * 3), 0.95)
    assert (mixed.square_norm, mixed.trace) == pytest.approx((9.0 / 4.0, 27.0 / 4.0))
    assert noise_estimate(blocks([1.0] * 9, [0.0] * 9), 0.95).reason == "9 readings do not tell the noise from none"


def test_whole_epochs_are_compared_once_there_are_eight() -> None:
    """Within an epoch what some exceed others lack: only whole epochs show how little the average varies."""
    few, many = NoiseScale(), NoiseScale()
    generator = np.random.default_rng(7)
    signs = [sign for _ in range(13) for sign in generator.permutation([1.0] * 10 + [-1.0] * 10)]
    for i in range(260):
        excess = 0.5 * signs[i] + 0.01 * generator.normal()
        for estimate, enough in ((few, i < 100), (many, True)):
            if enough:
                estimate.update(3.0 + excess, 1.0 + excess, **BIG, population=1280, epoch=i // 20)
    wide, narrow = few.estimate(), many.estimate()
    assert (wide.readings, narrow.readings) == (100, 160)  # the eight latest that are over
    assert wide.high / wide.low > 1.1
    assert narrow.high / narrow.low < 1.01


@pytest.mark.parametrize("per_epoch", [None, 3, 20, 150])
@pytest.mark.parametrize("mean", [0.02, 1.0])
def test_blocks_stay_few_and_lose_next_to_nothing(per_epoch: int | None, mean: float) -> None:
    estimate = NoiseScale()
    feed(estimate, 1500, mean, per_epoch=per_epoch)
    held = estimate._blocks.all
    assert len(held) <= MOST_BLOCKS
    assert sum(block.weight for block in held) == 64 * sum(block.readings for block in held)
    assert [b.first for b in held] == sorted(b.first for b in held)
    if per_epoch is not None:
        assert held[-1].last == 1499 // per_epoch
    if mean < 0.1:
        assert sum(block.readings for block in held) >= 0.95 * 1500  # chance alone may look like a drift


@pytest.mark.parametrize("per_epoch", [None, 7])
def test_state_round_trip(per_epoch: int | None) -> None:
    estimate, other = NoiseScale(), NoiseScale()
    feed(estimate, 300, 0.05, per_epoch=per_epoch)
    state = json.loads(json.dumps(estimate.state_dict(), allow_nan=False))
    check_form(other.state_dict(), state, "noise_scale")
    other.load_state_dict(state)
    assert other.estimate() == estimate.estimate()
    for e in (estimate, other):
        feed(e, 300, 0.05, seed=4, per_epoch=per_epoch)
    assert other.estimate() == estimate.estimate()
    assert other.count == 600


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="small_batch=8"):
        noise_scale_moments(1.0, 1.0, 8, 8)
    with pytest.raises(ValueError, match="population=8"):
        noise_scale_moments(1.0, 1.0, 8, 16, population=8)
    with pytest.raises(ValueError, match="level"):
        NoiseScale().estimate(level=95.0)
    with pytest.raises(ValueError, match="probability"):
        student_quantile(0.975, 0)


def test_student_quantiles() -> None:
    for freedom in (*range(1, 12), 31, 63, 400):
        for probability in (0.5, 0.9, 0.975, 0.9875, 0.9995):
            expected = stats.t.ppf(probability, freedom)
            assert student_quantile(probability, freedom) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def said(value: float | None, low: float, high: float, batch: int, population: int | None = None) -> str:
    return noise_words(NoiseEstimate(value, low, high, 1.0, 1.0, 99, 0.95, "of a reason"), batch, population)


def test_words() -> None:
    assert said(2700, 1900, 4400, 512, 60000) == (
        "noise scale 2,700 (1,900 to 4,400): this batch of 512 costs 1.19x (1.12 to 1.27) the samples of the smallest batch and "
        "6.3x (4.7 to 9.6) the updates of the largest; at 2,700 both would be 2x"
    )
    assert said(None, 9012.0, math.inf, 1024, 60000) == (
        "noise scale at least 9,000: this batch of 1,024 costs at most 1.11x the samples of the smallest batch and at least 9.8x "
        "the updates of the largest"
    )
    assert "at least 71,000, beyond this train set of 60,000: this" in said(1e6, 70_512.0, math.inf, 512, 60_000)
    assert "90,000 (71,000 to 110,000), beyond this train set of 60,000: " in said(9e4, 7.1e4, 1.1e5, 512, 60_000)
    assert "at least 71,000: " in said(None, 71_000, math.inf, 512)
    assert said(3.14, 2.04, 4.96, 512).startswith(
        "noise scale 3.1 (2.0 to 5.0): this batch of 512 costs 160x (100 to 250)"
    )
    assert said(None, 0.0, math.inf, 512) == "noise scale not known: of a reason"
    assert noise_words(NoiseScale().estimate(), 8, name="held-out noise scale") == (
        "held-out noise scale not known: there are no readings yet"
    )


def test_the_tradeoff() -> None:
    """(S / S_min - 1) (E / E_min - 1) = 1, eq. 2.11 of the paper."""
    for batch in (10.0, 300.0, 5000.0):
        updates, samples = cost_of(batch, 700.0)
        assert (updates - 1) * (samples - 1) == pytest.approx(1.0)
        assert efficiency(batch, 700.0) == pytest.approx(1 / samples)


def test_memory_does_not_shrink_below_whole_epochs() -> None:
    estimate = NoiseScale()
    generator = np.random.default_rng(8)
    for i in range(1000):
        excess = float(0.3 * generator.normal())
        estimate.update(3.0 + excess, 1.0 + excess, **BIG, population=1472, epoch=i // 23)
        if i >= 400:
            assert len(estimate._blocks.clusters()) >= WHOLE_EPOCHS
            assert len({block.first for block in estimate._blocks.clusters()}) == len(estimate._blocks.clusters())
    assert estimate.estimate().readings < 500


def test_what_differs_from_the_newest_is_forgotten() -> None:
    """``|G|^2`` falls to a sixteenth at once, as where the learning rate falls: the average over both would be 28 for long."""
    generator = np.random.default_rng(9)
    estimate = NoiseScale()
    for i in range(800):
        square = 5.0 if i < 700 else 0.3
        error = generator.normal(size=50) * math.sqrt(100 / 50 / 64)
        big = float(error @ error) + square + 2 * math.sqrt(square) * float(error[0])
        trace = 100 * generator.chisquare(350) / 350
        estimate.update(big + trace * (1 / 8 - 1 / 64), big, small_batch=8, big_batch=64)
        if i == 699:
            assert estimate.estimate().value == pytest.approx(20, rel=0.1)
    found = estimate.estimate()
    assert found.low < 100 / 0.3 < found.high
    assert found.value is not None
    assert found.value > 90
