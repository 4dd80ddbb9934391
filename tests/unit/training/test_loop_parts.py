"""Plans, schedules, evaluation and the vote to stop, each against a reference of its own."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from training_cases import MakeRun

from disttrain.config import load_recipe
from disttrain.engine.stop import StopVote
from disttrain.errors import InputError
from disttrain.inference.evaluate import evaluate
from disttrain.plan.explain import explain
from disttrain.plan.plan import StepPlan, resolve_plan


def plan_of(*overrides: str, train: int = 60000, test: int = 10000, ranks: int = 1) -> StepPlan:
    return resolve_plan(load_recipe(None, list(overrides)), train, test, ranks)


def test_the_learning_rate_follows_the_global_batch_and_not_the_ranks() -> None:
    words = ["batch.global=1024", "optimizer.lr=0.1", "optimizer.reference_batch=256"]
    assert plan_of(*words).peak_lr == pytest.approx(0.4)
    assert plan_of(*words, ranks=64).peak_lr == pytest.approx(0.4)
    assert plan_of(*words, "optimizer.lr_scaling=sqrt").peak_lr == pytest.approx(0.2)
    assert plan_of(*words, "optimizer.lr_scaling=none").peak_lr == pytest.approx(0.1)
    assert plan_of(
        "batch.per_rank=128", "optimizer.lr=0.1", "optimizer.reference_batch=256", ranks=8
    ).peak_lr == pytest.approx(0.4)


def test_shares_and_accumulation_are_derived() -> None:
    plan = plan_of("batch.global=500", "batch.per_rank_max=50", ranks=3)
    assert (plan.share, plan.accumulation, plan.micro_batch) == ((166, 167), 4, 42)
    plan = plan_of("batch.per_rank=32", "batch.accumulation=4", ranks=3)
    assert (plan.global_batch, plan.accumulation, plan.micro_batch) == (384, 4, 32)
    plan = plan_of("batch.global=2", ranks=3)
    assert plan.share == (0, 1)
    assert any(what == "idle ranks" for what, _, _ in explain(load_recipe(None, ["batch.global=2"]), plan))


def test_warmup_and_decay_at_their_corners() -> None:
    words = [
        "batch.global=600",
        "epochs=10",
        "optimizer.lr=0.5",
        "schedule.warmup.epochs=2",
        "schedule.decay.kind=cosine",
    ]
    lr = plan_of(*words).lr
    assert [lr(s) for s in (0, 60000, 120000)] == pytest.approx([0.0, 0.25, 0.5])
    assert lr(360000) == pytest.approx(0.25)
    assert lr(600000) == pytest.approx(0.0, abs=1e-12)
    # The same schedule at another batch: a function of samples, not of updates.
    assert [plan_of(*words, "batch.global=8192").lr(s) for s in (1234, 99999, 345678)] == [
        lr(s) for s in (1234, 99999, 345678)
    ]


def test_milestones_count_from_the_start_of_the_run() -> None:
    words = ["epochs=90", "optimizer.lr=0.1", "schedule.warmup.epochs=5", "schedule.decay.kind=multistep"]
    lr = plan_of(*words, "schedule.decay.milestones.epochs=[30, 60, 80]").lr
    assert [lr(60000 * e) for e in (29, 30, 60, 80, 89)] == pytest.approx([0.1, 0.01, 1e-3, 1e-4, 1e-4])


@pytest.mark.parametrize("kind", ["linear", "cosine", "polynomial", "exponential"])
def test_decays_end_where_they_are_told(kind: str) -> None:
    lr = plan_of(
        "epochs=4", "optimizer.lr=2.0", "schedule.warmup=null", f"schedule.decay.kind={kind}", "schedule.decay.end=0.1"
    ).lr
    assert lr(0) == pytest.approx(2.0)
    assert lr(240000) == pytest.approx(0.2)
    assert lr(10**9) == pytest.approx(0.2)
    assert all(lr(s) >= lr(s + 1000) for s in range(0, 240000, 1000))


def test_lengths_and_the_short_last_batch() -> None:
    plan = plan_of("batch.global=512", "epochs=3")
    assert (plan.epoch.updates, plan.total_updates, plan.total_samples) == (118, 354, 180000)
    plan = plan_of("batch.global=512", "batch.last=drop", "epochs=3")
    assert (plan.epoch.updates, plan.epoch.samples, plan.total_samples) == (117, 59904, 179712)
    plan = plan_of("batch.global=512", "epochs=null", "updates=120")
    assert plan.total_samples == 60000 + 2 * 512


def test_a_batch_larger_than_the_data_is_refused() -> None:
    with pytest.raises(InputError, match=r"choose batch\.global <= 100"):
        plan_of("batch.global=101", train=100)
    with pytest.raises(InputError, match="world size 0"):
        plan_of(ranks=0)


def test_evaluation_is_the_mean_over_the_test_set(make_run: MakeRun) -> None:
    run = make_run("evaluate.batch=37", "precision=fp64")
    found = evaluate(run)
    images, labels = run.task.test_dataset().tensors
    with torch.no_grad():
        logits = run.model(images.double())
    assert found["loss"] == pytest.approx(float(F.cross_entropy(logits, labels)), rel=1e-12)
    assert found["accuracy"] == float((logits.argmax(1) == labels).double().mean())
    assert run.model.training


def test_text_counts_tokens(make_run: MakeRun, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("the quick brown fox jumps over the lazy dog. " * 400)
    run = make_run(
        "task.name=text", f"task.root={text}", "task.sequence_length=16", "model.name=transformer", "model.layers=1",
        "model.width=16", "model.heads=2", "batch.global=32", "evaluate.batch=7", "precision=fp64",
    )  # fmt: skip
    found = evaluate(run)
    inputs, targets = run.task.test_dataset().gather(torch.arange(run.plan.test_samples).numpy())
    with torch.no_grad():
        expected = float(F.cross_entropy(run.model(inputs).flatten(0, 1), targets.flatten()))
    assert found["loss"] == pytest.approx(expected, rel=1e-10)
    assert found["perplexity"] == pytest.approx(math.exp(expected))


class Votes:
    """An engine whose other rank votes as told."""

    class world:
        is_main = True

    def __init__(self) -> None:
        self.calls = 0
        self.other = False

    def all_reduce(self, ballot: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        ballot[0] += int(self.other)
        return ballot


def test_the_vote_is_rare_and_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count()  # a reading takes as long as ten updates at 10 us
    monkeypatch.setattr("disttrain.engine.stop.time", SimpleNamespace(monotonic=lambda: next(clock) / 10_000))
    engine = Votes()
    vote = StopVote(engine, interval_seconds=0.05)  # type: ignore[arg-type]
    assert not any(vote(False) for _ in range(20000))
    assert engine.calls < 1000
    engine.other = True
    assert any(vote(False) for _ in range(20001))
