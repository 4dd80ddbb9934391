"""A batch that follows what is measured: planned, trained, stopped at every update and gone on with."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from training_cases import MakeRun

import disttrain
from disttrain.config import RecipeError, load_recipe
from disttrain.config.sections.adaptive import NoiseScalePolicy, NormTest
from disttrain.errors import CheckpointError, InputError
from disttrain.grads import NoiseScale
from disttrain.methods.batch_size import decide
from disttrain.nn.facts import ModelFacts
from disttrain.plan.adaptive import DELAY
from disttrain.plan.explain import explain
from disttrain.plan.plan import StepPlan, resolve_plan
from disttrain.schedules import BatchLimits
from disttrain.telemetry import NullSink
from disttrain.telemetry.jsonl import read_records
from disttrain.training.journal import Journal
from disttrain.training.loop import advance, batches
from disttrain.training.state import Run

SLICES = "noise_scale={every_steps: 1, slice: 16}"
POLICY = "policy: noise_scale, every: 8, level: 0.6, grow_above: 1.2, shrink_below: 0.6, min: 32, max: 512"
ADAPTIVE = f"batch={{global: 128, adaptive: {{{POLICY}}}}}"
WORDS = [
    "task.name=digits",
    ADAPTIVE,
    SLICES,
    "model={name: mlp, hidden: [16]}",
    "optimizer={name: sgd, lr: 0.2, momentum: 0.9}",
    "schedule={decay: {kind: cosine}}",
    "epochs=null",
    "samples=6000",
    "evaluate=null",
    "precision=fp64",
]


class Kept(NullSink):
    def __init__(self) -> None:
        self.events: list[Mapping[str, Any]] = []

    def log(self, record: Mapping[str, Any]) -> None:
        if record.get("event") == "batch":
            self.events.append(record)


State = tuple[dict[str, Any], dict[str, torch.Tensor]]


def go_on(run: Run, most: int = 1000) -> tuple[list[tuple[int, float]], list[Mapping[str, Any]], list[State]]:
    """To the end, or so many updates: samples and learning rate of each update, the events, and the state after each update."""
    sink, stream = Kept(), batches(run)
    journal, found, states = Journal(run, sink), [], []
    while run.progress.scheduled < run.plan.total_samples and len(found) < most:
        batch = next(stream)
        advance(run, batch, journal, sink)
        found.append((batch.size, float(run.optimizer.param_groups[0]["lr"])))
        states.append((copy.deepcopy(run.state_dict()), copy.deepcopy(run.model.state_dict())))
    journal.flush()
    stream.close()
    return found, sink.events, states


def test_it_changes_when_it_said_and_goes_on_from_every_update(make_run: MakeRun) -> None:
    run = make_run(*WORDS)
    updates, events, states = go_on(run)
    assert len({e["global_batch"] for e in events}) > 1  # it has shrunk and grown
    assert min(b for e in events for b in [e["global_batch"]]) < 128
    # Sizes and rates are those of the events, from the update on that each names; the last batch of an epoch is short.
    batch, seen = 128, 0
    for number, (size, lr) in enumerate(updates, start=1):
        batch = next((e["global_batch"] for e in events if e["from_update"] == number), batch)
        assert size == min(batch, 1437 - seen % 1437)
        assert lr == pytest.approx(0.2 * (1 + math.cos(math.pi * seen / 6000)) / 2 * batch / 128, rel=1e-12)
        seen += size
    assert all(e["from_update"] == e["step"] + 1 + DELAY for e in events)
    assert "rate x 0.5" in events[0]["message"]
    # Before the first decision, right after it, at its effect, and between the two, from there to the end.
    first = events[0]["step"]
    for cut, most in [(first - 1, 8), (first, 8), (first + DELAY, 3), (first + 2, 1000)]:
        state, model = states[cut - 1]
        other = make_run(*WORDS)
        other.load_state_dict(copy.deepcopy(state))
        other.model.load_state_dict(model)
        rest, told, _ = go_on(other, most)
        assert rest == updates[cut : cut + most]
        assert told == [e for e in events if cut < e["step"] <= cut + most]
    assert all(torch.equal(a, b) for a, b in zip(other.params, run.params, strict=True))


def test_a_run_that_goes_on_says_what_holds_from_there(tmp_path: Path) -> None:
    place = tmp_path / "run"
    for samples in (1000, 3000, 6000):
        words = [*WORDS, "log={every_steps: 1, sinks: []}", f"samples={samples}"]
        disttrain.train(load_recipe(None, words), run_dir=place, resume="auto", quiet=True)
    (log,) = place.rglob("*.log")
    said = (
        "batch.adaptive.every is 8, a decision takes effect 5 updates later, and the run has 8: the batch never changes"
    )
    assert log.read_text().count(said) == 1, "of the first start alone"
    lines = read_records(place / "metrics.jsonl")
    start, second, third = (i for i, line in enumerate(lines) if line.get("event") in ("start", "resume"))
    assert [lines[start][key] for key in ("global_batch", "peak_lr", "updates")] == [128, 0.2, 8]
    assert lines[second]["global_batch"] == 128
    batch = next(line["global_batch"] for line in lines[third + 1 :] if "event" not in line)
    assert batch != 128
    assert (lines[third]["global_batch"], lines[third]["peak_lr"]) == (batch, pytest.approx(0.2 * batch / 128))
    left = lines[third]["updates"] - lines[third]["step"]
    assert left == pytest.approx(3000 / batch, abs=3)


def test_a_checkpoint_with_another_batch_is_refused(make_run: MakeRun) -> None:
    run = make_run(*WORDS)
    kept = run.state_dict()
    for change in ({"now": 100}, {"now": 1024}, {"next": 8}, {"from_update": 2.5}):
        state = copy.deepcopy(kept)
        state["methods"]["batch_size"] |= change
        with pytest.raises(CheckpointError, match="expected multiples of 16 from 32 to 512"):
            run.load_state_dict(state)
    del state["methods"]["batch_size"]["recent"]
    with pytest.raises(CheckpointError, match="a mapping of"):
        run.load_state_dict(state)


def test_too_few_readings_decide_nothing() -> None:
    noise, limits = NoiseScale(), BatchLimits(64, 4096, 64)
    policies = (
        NoiseScalePolicy(policy="noise_scale", max=4096, level=0.6, grow_above=1.0),
        NormTest(policy="norm_test", max=4096),
    )
    for count in range(30):
        for settings in policies:
            assert (decide(settings, limits, 64, noise)[0] == 64) == (count < 8), (settings, count)
        noise.update(100.0 + count % 3, 14.0 + count % 2 / 10, small_batch=8, big_batch=64)


def plan(*overrides: str, ranks: int = 1, model: ModelFacts | None = None) -> StepPlan:
    recipe = load_recipe(None, [*WORDS, *overrides])
    return resolve_plan(recipe, 1437, 360, ranks, model or ModelFacts())


def test_the_plan_says_what_is_known_before() -> None:
    found = plan("optimizer={name: adamw, lr: 0.01}", ranks=2)
    assert (found.global_batch, found.largest_batch, found.updates_in_words) == (128, 512, "about 50")
    recipe = load_recipe(None, [*WORDS, "optimizer={name: adamw, lr: 0.01}"])
    lines = {what: (value, why) for what, value, why in explain(recipe, found)}
    assert "batch changes" not in lines
    slow = load_recipe(None, [*WORDS, "batch.adaptive.every=200"])
    assert ("batch changes", "never") in [(what, value) for what, value, _ in explain(slow, found)]
    assert lines["adaptive batch"][0] == "32 to 512, by 2 x at most"
    assert lines["rate and batch"] == (
        "sqrt",
        "the learning rate is multiplied by the root of what the batch is, adamw's law; betas, momentum and weight decay "
        "stay, so they remember more samples at a larger batch",
    )
    assert lines["result depends on ranks"][0] == "no"
    assert plan().adaptive is not None
    invariant = "{name: batch_invariant_adam, lr: 0.1, slice: 16, reference_batch: 16, lr_scaling: linear}"
    laws = [plan(f"optimizer={o}").adaptive for o in ("{name: lars, lr: 1.0}", "{name: lamb, lr: 0.1}", invariant)]
    assert [law.law for law in laws if law is not None] == ["linear", "sqrt", "linear"]


@pytest.mark.parametrize(
    ("overrides", "ranks", "message"),
    [
        (["noise_scale=null"], 1, "add noise_scale: {every_steps: 1, slice: N}"),
        (["noise_scale={every_steps: 1}"], 1, "add noise_scale"),
        (["noise_scale={every_steps: 2, slice: 16}"], 1, "expected at least 16"),
        (["samples=null", "updates=100"], 1, "updates: given in updates"),
        (
            ["schedule.warmup={updates: 3}", "evaluate={updates: 5}"],
            1,
            "schedule.warmup.updates, evaluate.updates: given",
        ),
        (["average={kind: ema, half_life: {updates: 3}}"], 1, "average.half_life.updates: given"),
        (["noise_scale={every_steps: 1, slice: 7}"], 1, "min is 32, and batches are multiples of 7"),
        (["batch.adaptive.max=2048"], 1, "choose one of at most 1424"),
        (["stages=[{samples: 100}, {}]"], 1, "stages measure the noise scale anew"),
        (["optimizer={name: sgd, lr: 0.1, lr_scaling: adascale, reference_batch: 16}"], 1, "adascale follows"),
        (["optimizer={name: 'a:B', lr: 0.1}"], 1, "name a law"),
        ([], 3, "at most 2 ranks"),  # the smallest batch, 32, has two slices
    ],
)
def test_what_does_not_go_with_it_is_refused_with_what_would(overrides: list[str], ranks: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        plan(*overrides, ranks=ranks)


def test_a_synchronised_norm_is_refused() -> None:
    with pytest.raises(InputError, match="use batch_norm"):
        plan(model=ModelFacts(sync_norm=True))


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ("{per_rank: 64, adaptive: {policy: norm_test, max: 512}}", "goes with global"),
        ("{global: 64, last: drop, adaptive: {policy: norm_test, max: 512}}", "needs last: keep"),
        ("{global: 64, growth: {kind: late, batch: 512}, adaptive: {policy: norm_test, max: 512}}", "leave out either"),
        ("{global: 64, adaptive: {policy: norm_test, max: 32}}", "expected at least batch.global, 64"),
        ("{global: 64, adaptive: {policy: noise_scale, max: 128, min: 96}}", "expected at most batch.global, 64"),
        ("{global: 64, adaptive: {policy: noise_scale, max: 512, factor: 8}}", "could shrink by the same reading"),
        (
            "{global: 64, adaptive: {policy: norm_test, max: 512, min: 8}}",
            "unknown key for norm_test; it belongs to noise_scale",
        ),
        (
            "{global: 64, adaptive: {policy: noise, max: 512}}",
            'got "noise"; expected noise_scale or norm_test|did you mean',
        ),
        ("{global: 64, adaptive: {max: 512}}", "policy"),
    ],
)
def test_a_section_that_contradicts_itself_is_refused(batch: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe(None, [f"batch={batch}"])
