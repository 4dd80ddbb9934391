"""Advice from directories whose answers are known."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from disttrain.advice.advise import Question, advise
from disttrain.advice.draws import drawn, figure, of_values
from disttrain.advice.evidence import Between, Hyperbola
from disttrain.advice.goodput import Option, best, front
from disttrain.advice.rates import between
from disttrain.advice.words import as_json, cost_rows, rows, sentences
from disttrain.cli import main as command_line
from disttrain.config import check_recipe, load_recipe
from disttrain.errors import InputError
from disttrain.rundir.rundir import write_recipe
from disttrain.scaling.record import Forecast, Interval, ScaledRun, Scaling, Split, save
from tests.harness import ROOT

RECIPE: dict[str, Any] = {
    "name": "known",
    "task": {"name": "digits"},
    "model": {"name": "mlp", "hidden": [16]},
    "batch": {"global": 64},
    "samples": 6400,
    "optimizer": {"name": "sgd", "lr": 0.1},
    "data": {"validation": {"fraction": 0.2}},
    "noise_scale": {"every_steps": 2, "slice": 8},
}
START = {"event": "start", "step": 0, "ranks": 1, "engine": "local", "global_batch": 64, "peak_lr": 0.1}
NOISE = {"noise_scale": 256.0, "noise_scale_low": 160.0, "noise_scale_high": 400.0}
END = {"event": "end", "state": "finished", "step": 100}


def ask(place: Path, *more: Any, **options: Any) -> Question:
    return Question((place,), *more, **options)


def line(step: int, **more: Any) -> dict[str, Any]:
    return {"step": step, "samples": 64 * step, "loss": 1.0, "samples_per_second": 1000.0 + step % 3, **more}


def evaluated(step: int, loss: float) -> dict[str, Any]:
    return {"split": "validation", "step": step, "samples": 64 * step, "loss": loss, "accuracy": 1 - loss}


LINES = [START, line(20), line(40, **NOISE), line(60, **NOISE), line(80, **NOISE), line(100, **NOISE)]
CURVE = [evaluated(step, 1.0 - step / 125) for step in range(10, 101, 10)]  # 0.5 after 62.5 updates


def make_run(place: Path, records: list[dict[str, Any]], recipe: Mapping[str, Any] = RECIPE) -> Path:
    place.mkdir(parents=True, exist_ok=True)
    write_recipe(place, check_recipe(recipe))
    (place / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (place / "environment.jsonl").write_text(json.dumps({"step": 0, "plan": {"train_samples": 100000}}) + "\n")
    return place


def make_scale(place: Path, speeds: Mapping[tuple[int, int], float], **more: Any) -> Path:
    """Of (ranks, batch), known to a thousandth."""
    runs = tuple(
        ScaledRun(
            "strong",
            ranks,
            1,
            "ddp",
            batch,
            near(speed),
            near(batch / speed),
            Split(0.6, 0.2, 0.1, 0.05, 0.03, 0.02, 0.0),
        )
        for (ranks, batch), speed in speeds.items()
    )
    place.mkdir()
    save(Scaling("known", {**RECIPE, **more}, {}, 1000, runs, None, (Forecast("weak", 8, 512, near(5000.0)),)), place)
    return place


def near(value: float) -> Interval:
    return Interval(value, value * 0.999, value * 1.001)


def test_draws_keep_the_ends_of_an_interval() -> None:
    random = np.random.default_rng(1)
    found = figure(drawn(100.0, 60.0, 300.0, random))
    assert (found.value, found.low, found.high) == (100.0, pytest.approx(60, rel=0.06), pytest.approx(300, rel=0.12))
    speeds = figure(of_values([90.0, 100.0, 110.0], random))
    assert speeds.value == pytest.approx(np.exp(np.log([90, 100, 110]).mean()))
    assert speeds.high == pytest.approx(
        speeds.value * np.exp(np.log([90, 100, 110]).std(ddof=1) / 3**0.5 * 4.303), rel=0.1
    )


def test_time_times_cost_is_least_at_the_critical_batch_where_ranks_scale_without_loss() -> None:
    """With a rank for every 64 samples, and so time proportional to updates: McCandlish et al. 2018, section 2.3."""
    draws = np.full(11, 500.0)
    cost = Hyperbola.through(64, 10_000.0, draws)
    assert cost.samples(64)[0] == pytest.approx(10_000)
    assert cost.samples(1000)[0] == pytest.approx(10_000 / (1 + 64 / 500) * 3)
    every = []
    for ranks in range(1, 32):
        batch, speed = 64 * ranks, np.full(11, 100.0 * ranks)
        samples = cost.samples(batch)
        option = Option(ranks, batch, 0.1, "", samples, cost.efficiency(batch), speed, "measured", samples / speed)
        every.append(option)
        assert option.seconds[0] == pytest.approx(cost.least[0] / option.goodput[0])
    assert best(every).option.batch == 512
    assert front(every) == every, "each is faster and dearer than the one before"
    assert best(every).regret == 1.0
    straight = Between(((10, np.full(3, 100.0)), (1000, np.full(3, 400.0))))
    assert straight.samples(100)[0] == pytest.approx(200)
    assert straight.efficiency(100)[0] == pytest.approx(0.5)
    rate = between([(32, 0.1), (128, 0.4)], lambda batch: (batch / 100, "linear"))
    assert [rate(b)[0] for b in (32, 64, 128, 256)] == pytest.approx([0.1, 0.2, 0.4, 0.8])


def test_a_run_and_a_scaling_give_advice(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [*LINES, *CURVE, END])
    strange = tmp_path / "strange"
    strange.mkdir()
    (strange / "settings.json").write_text(json.dumps({"format": 1, "ranks": [1, 2]}))
    scale = make_scale(tmp_path / "scale", {(1, 64): 1000.0, (2, 64): 1500.0, (2, 128): 1800.0, (4, 256): 3000.0})
    advice = advise(ask(run, scale, price=2.0, target=("loss", 0.5)))
    found = as_json(advice)
    by_hand = 4000 * (1 + 256 / 256) / (1 + 64 / 256)  # 62.5 updates of 64 to the target
    option = next(o for o in found["options"] if (o["ranks"], o["batch"]) == (4, 256))
    assert option["samples"]["value"] == pytest.approx(by_hand)
    assert option["samples"]["low"] == pytest.approx(4000 * (1 + 256 / 400) / (1 + 64 / 400), rel=0.02)
    assert option["samples"]["high"] == pytest.approx(4000 * (1 + 256 / 160) / (1 + 64 / 160), rel=0.02)
    assert option["updates"]["value"] == pytest.approx(by_hand / 256)
    assert option["seconds"]["value"] == pytest.approx(by_hand / 3000)
    assert option["price"]["value"] == pytest.approx(2 * 4 * by_hand / 3000 / 3600)
    assert option["goodput"]["value"] == pytest.approx(3000 / 2)
    assert option["rate"] == pytest.approx(0.4)
    by_hand_again = min(found["options"], key=lambda o: o["ranks"] * o["seconds"]["value"] ** 2)
    assert found["advice"] == by_hand_again
    forecast = [o["batch"] for o in found["options"] if o["origin"] == "forecast"]
    assert forecast == [512], "one batch without a split says nothing of others"
    same = next(o for o in found["options"] if (o["ranks"], o["batch"]) == (2, 64))
    other = next(o for o in found["options"] if (o["ranks"], o["batch"]) == (4, 128))
    assert [same["samples"][end] for end in ("low", "high")] == pytest.approx([4000, 4000])
    assert other["samples_per_second"]["value"] == pytest.approx(128 / (256 / 3000 * (0.2 + 0.8 / 2)))
    text = " ".join(sentences(advice))
    for part in (
        "linear law of sgd",
        "forecast, which was not measured",
        "one run",
        "measured updates",
        "a study at",
        "scale",
    ):
        assert part in text
    assert len(rows(advice)) >= 2
    assert [row[0] for row in cost_rows(advice)] == ["8", "16", "32", "64", "128", "256", "512"]
    only = advise(ask(run, scale, ranks=(2, 3), batches=(64, 128, 100_000), target=("loss", 0.5)))
    assert {(o.ranks, o.batch) for o in only.options} == {(2, 64), (2, 128)}
    assert any("3 ranks" in note for note in only.notes)
    assert any("100,000" in note for note in only.notes)


def test_branches_come_before_the_noise_scale_and_a_disagreement_is_said(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [*LINES, *CURVE, END])
    crossing = {"where": "between", "batch": 900.0, "low": 500.0, "high": 1500.0}
    (run / "branches").mkdir()
    point = {"step": 40, "start": 2560, "crossing": crossing}
    path = run / "branches" / "critical_batch.json"
    path.write_text(json.dumps({"points": [point]}))
    advice = advise(ask(run))
    assert advice.evidence.source == "branches"
    assert any("disagrees; branches is taken before noise scale" in reason for reason in advice.evidence.reasons)
    path.write_text(json.dumps({"points": [{**point, "crossing": {**crossing, "high": None}}]}))
    assert advise(ask(run)).evidence.source == "noise scale"
    path.write_text("{}")
    with pytest.raises(InputError, match="cannot be read as what disttrain branch writes"):
        advise(ask(run))


def test_several_runs_say_how_they_scatter(tmp_path: Path) -> None:
    runs = []
    for seed, (scale, took) in enumerate(((200.0, 3800), (250.0, 4000), (400.0, 4400))):
        noise = {"noise_scale": scale, "noise_scale_low": scale * 0.8, "noise_scale_high": scale * 1.25}
        lines = [START, *(line(step, **noise) for step in (20, 40, 60, 80, 100))]
        curve = [{**evaluated(step, 0.5 + (took - 64 * step) / 8000)} for step in range(10, 101, 10)]
        runs.append(make_run(tmp_path / f"run{seed}", [*lines, *curve, END], {**RECIPE, "seed": seed}))
    advice = advise(Question(tuple(runs), batches=(64, 256), target=("loss", 0.5)))
    own, large = (row["samples"] for row in as_json(advice)["batches"])
    logs = np.log([3800, 4000, 4400])
    half = logs.std(ddof=1) / 3**0.5 * 4.303
    assert [own[end] for end in ("value", "low", "high")] == pytest.approx(
        [np.exp(logs.mean()), np.exp(logs.mean() - half), np.exp(logs.mean() + half)], rel=0.02
    )
    critical = (200 * 250 * 400) ** (1 / 3)
    assert large["value"] == pytest.approx(np.exp(logs.mean()) * (1 + 256 / critical) / (1 + 64 / critical))
    assert "the mean of 3 runs" in advice.evidence.criticals[0].words
    assert "3 runs such as" in advice.evidence.reasons[0]
    make_run(runs[1], [*LINES, *CURVE, END], {**RECIPE, "optimizer": {"name": "sgd", "lr": 0.2}})
    with pytest.raises(InputError, match=r"no runs of one recipe with other seeds:\n  optimizer\.lr: 0\.1 -> 0\.2"):
        advise(Question(tuple(runs)))


UNKNOWN = {"noise_scale": 300.0, "noise_scale_low": 90.0, "noise_scale_high": None, "noise_scale_reason": "too few"}


@pytest.mark.parametrize(
    ("records", "says"),
    [
        ([START, line(50), line(100), END], "noise scale was not measured"),
        ([START, line(50), line(100, **UNKNOWN), END], "at least 90 at update 100: too few; an interval without"),
        ([*LINES, END], "measure it with disttrain scale"),
    ],
)
def test_it_says_that_it_does_not_know(tmp_path: Path, records: list[dict[str, Any]], says: str) -> None:
    advice = advise(ask(make_run(tmp_path / "run", records)))
    assert advice.chosen is None
    assert sentences(advice)[0].startswith("no advice: ")
    assert says in sentences(advice)[0]
    assert as_json(advice)["advice"] is None


def test_what_is_too_uncertain_is_not_advised(tmp_path: Path) -> None:
    wild = {"noise_scale": 256.0, "noise_scale_low": 1.0, "noise_scale_high": 1e6}
    run = make_run(tmp_path / "run", [START, line(50, **wild), line(100, **wild), END])
    strange = tmp_path / "strange"
    strange.mkdir()
    (strange / "settings.json").write_text(json.dumps({"format": 1, "ranks": [1, 2]}))
    scale = make_scale(tmp_path / "scale", {(1, 64): 1000.0, (8, 512): 8000.0})
    advice = advise(ask(run, scale, batches=(64, 512)))
    assert advice.chosen is None
    assert "too uncertain to choose" in sentences(advice)[0]


STUDY = ROOT / "benchmarks" / "critical_batch_study"


def make_study(place: Path, without: tuple[int, ...] = ()) -> Path:
    data = json.loads((STUDY / "study.json").read_text())
    data["batches"] = [point for point in data["batches"] if point["batch"] not in without]
    place.mkdir()
    (place / "study.json").write_text(json.dumps(data))
    (place / "settings.json").write_text(json.dumps({"format": 1, "disttrain": "0.2.0", **data["settings"]}))
    write_recipe(place, load_recipe(STUDY.with_suffix(".yaml")))
    return place


def test_a_study_forecasts_batches_that_it_is_not_shown(tmp_path: Path) -> None:
    """Of the study of benchmarks/critical_batch.md, whose fit stands in its own file."""
    said = json.loads((STUDY / "study.json").read_text())
    whole = advise(ask(make_study(tmp_path / "whole")))
    assert whole.evidence.source == "study"
    for row in as_json(whole)["batches"]:
        fit = said["fit"]["least_samples"]["value"] * (1 + row["batch"] / said["fit"]["critical_batch"]["value"])
        assert row["samples"]["value"] == pytest.approx(fit, rel=1e-9)
    held_out = advise(ask(make_study(tmp_path / "part", (128, 1024)), batches=(128, 1024)))
    for row in as_json(held_out)["batches"]:
        measured = next(point["samples_to_target"] for point in said["batches"] if point["batch"] == row["batch"])
        assert abs(row["samples"]["value"] / measured - 1) < 0.25
    assert whole.chosen is None, "its seconds were taken on a busy machine and scatter by more than they tell"
    assert "too uncertain" in whole.refusal
    easier = advise(ask(tmp_path / "whole", target=("loss", 0.5)))
    costs = [cost.samples(512)[0] for cost in (easier.evidence.cost, whole.evidence.cost) if cost is not None]
    assert 0 < costs[0] < costs[1]
    with pytest.raises(InputError, match="are of validation loss, and not of accuracy"):
        advise(ask(tmp_path / "whole", target=("accuracy", 0.8)))


def test_a_recipe_is_known_by_its_study_and_its_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path("known.yaml")
    path.write_text(json.dumps(RECIPE))
    nothing = advise(ask(path))
    assert "neither studies/known nor runs/known" in nothing.refusal
    assert any("disttrain study known.yaml" in sentence for sentence in nothing.narrower)
    make_run(Path("runs/known"), [*LINES, *CURVE, END])
    assert advise(ask(path)).evidence.source == "noise scale"
    make_run(Path("runs/known-20260101"), [START, line(100), END], {**RECIPE, "seed": 5})
    assert advise(ask(path)).evidence.source == "noise scale", "another recipe's run says nothing"


def wrong(tmp_path: Path) -> list[tuple[list[str], str]]:
    run = make_run(tmp_path / "run", [*LINES, *CURVE, END])
    running = make_run(tmp_path / "running", LINES)
    nan = make_run(tmp_path / "nan", [*LINES, {**evaluated(100, 0.1), "loss": None, "loss_nonfinite": "nan"}, END])
    old = make_run(tmp_path / "old", [{"event": "start"}, *LINES[1:], END])
    growing = make_run(
        tmp_path / "growing",
        [*LINES, END],
        {**RECIPE, "batch": {"global": 64, "growth": {"kind": "linear", "end": 128, "samples": 640}}},
    )
    empty = tmp_path / "empty"
    empty.mkdir()
    half = make_study(tmp_path / "half")
    (half / "study.json").unlink()
    other = make_study(tmp_path / "other")
    (other / "settings.json").write_text(json.dumps({"format": 7, "disttrain": "9.9"}))
    strange = tmp_path / "strange"
    strange.mkdir()
    (strange / "settings.json").write_text(json.dumps({"format": 1, "ranks": [1, 2]}))
    scale = make_scale(tmp_path / "scale", {(1, 64): 1000.0}, model={"name": "mlp", "hidden": [32]})
    return [
        ([str(run), "--price", "-1"], "--price -1.0: expected"),
        ([str(run), "--ranks", "1,x"], "--ranks '1,x': expected"),
        ([str(run), "--batches", "0"], "--batches 0: expected"),
        ([str(run), "--law", "cubic"], "--law 'cubic': expected"),
        ([str(run), "--target", "loss=0.001"], "has not reached validation loss"),
        ([str(run), "--target", "charm=1"], "no validation charm; there are loss, accuracy"),
        ([str(run), "--scale", str(empty)], "holds no scaling"),
        ([str(run), "--scale", str(scale)], "model.hidden"),
        ([str(running)], "has not ended"),
        ([str(nan)], "not finite"),
        ([str(old)], "another version wrote them"),
        ([str(growing)], "change during the run"),
        ([str(empty)], "holds no run"),
        ([str(strange)], "holds no study"),
        ([str(run), str(growing)], "change during the run"),
        ([str(run), str(run / "recipe.yaml")], "expected a run directory"),
        ([str(half)], "the study has not ended"),
        ([str(other)], "disttrain 9.9"),
        ([str(tmp_path / "nowhere")], "there is nothing"),
    ]


def test_bad_input_is_one_message_and_nothing_is_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = wrong(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for arguments, says in cases:
        monkeypatch.setattr(sys, "argv", ["disttrain", "plan", *arguments])
        with pytest.raises(SystemExit) as ended:
            command_line.main()
        said = capsys.readouterr()
        assert (ended.value.code, said.out) == (2, ""), arguments
        assert says in said.err
        assert "Traceback" not in said.err
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    for more, sign in (([], "no advice: throughput"), (["--json"], '"refusal": "throughput')):
        monkeypatch.setattr(sys, "argv", ["disttrain", "plan", str(tmp_path / "run"), *more])
        command_line.main()
        assert sign in capsys.readouterr().out
