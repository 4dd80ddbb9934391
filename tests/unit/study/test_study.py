"""A whole study: small, killed in the middle, asked again, and refused where it is another one."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import disttrain
from disttrain.errors import InputError
from disttrain.study import minima, plots, report
from disttrain.study.settings import SETTINGS, Settings, open_study
from disttrain.study.sharpness import largest_eigenvalue
from disttrain.study.shown import read_shown, shown
from disttrain.study.study import Found, study
from disttrain.study.surface import surface
from disttrain.study.trials import Outcome, Trial
from disttrain.study.variants import make_base
from disttrain.study.words import ended, sentences
from disttrain.tasks.digits import Digits

SMALL = (
    "batch.global=64",
    "optimizer={name: sgd, lr: 0.1}",
    "schedule={}",
    "epochs=4",
    "model={name: mlp, hidden: [16]}",
)
HELD = "data.validation={fraction: 0.2}"


class KilledError(BaseException):
    """Ends a process in a test as a signal would."""


def ask(place: Path, settings: Settings, *overrides: str, kill_after: int = 1000) -> Found:
    ran: list[str] = []

    def done(trial: Trial, outcome: Outcome) -> None:
        ran.append(trial.run_dir.name)
        if len(ran) >= kill_after:
            raise KilledError

    recipe = disttrain.Recipe.load(None, *SMALL, HELD, *overrides)
    return study(recipe, settings, place, done=done, say=lambda line: None)


def check_sharpness(found: Found, place: Path) -> None:
    told: list[str] = []
    first = minima.measure(found.points, place, told.append)
    assert len(told) == 4 + 3
    assert minima.measure(found.points, place, told.append) == first
    assert len(told) == 7, "what is known is not computed again"
    run = found.points[0].runs[0]
    assert first.found[0].eigenvalue == largest_eigenvalue(place / "runs" / run.run_dir, trust=True)
    lines = (place / "runs" / run.run_dir / "metrics.jsonl").read_text().splitlines()
    assert first.found[0].seen == max(json.loads(line).get("samples", 0) for line in lines)
    slices = dict(first.slices)
    assert list(slices) == ["line", "plane-32", "plane-512"]
    for position, point in ((0.0, found.points[0]), (1.0, found.points[-1])):
        here = slices["line"].losses[min(range(31), key=lambda i: abs(slices["line"].at[i] - position))]
        assert here == pytest.approx(surface(place / "runs" / point.runs[0].run_dir, trust=True).loss(), rel=1e-5)
    assert slices["plane-32"].losses[7][7] == pytest.approx(slices["line"].losses[10], rel=1e-5)

    whole = replace(found, minima=first)
    pictures = plots.draw(whole, place)
    assert pictures[4:] == ["sharpness", "line", "plane-32", "plane-512"]
    report.write(whole, place, pictures)
    said = json.loads((place / "study.json").read_text(), parse_constant=pytest.fail)
    assert read_shown(place) == (shown(whole), sentences(whole))
    assert [row["run_dir"] for row in said["minima"]["found"]] == [r.run_dir for p in found.points for r in p.runs]
    assert f"| {report.spread(first.of(512))} |" in (place / "study.md").read_text()
    assert any("goes on past the recipe's length" in sentence for sentence in sentences(whole))
    (place / minima.KEPT).write_text("{")
    with pytest.raises(InputError, match="delete it, and it is computed anew"):
        minima.measure(found.points, place, told.append)
    diverged = replace(found.points[0], runs=(replace(run, why="DivergedError: the loss is nan"),))
    shutil.rmtree(place / "runs" / found.points[1].runs[0].run_dir / "checkpoints")
    (place / minima.KEPT).unlink()
    left = minima.measure([diverged, replace(found.points[1], runs=found.points[1].runs[:1])], place, told.append)
    assert left.found == left.slices == ()
    assert ["which diverged" in words for words in left.left_out] == [True, False]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_study_goes_on_after_a_kill_and_says_what_it_found(tmp_path: Path) -> None:
    place, settings = tmp_path / "study", Settings((32, 512), "loss", 0.7, rates=3, seeds=2)
    with pytest.raises(KilledError):
        ask(place, settings, kill_after=3)
    runs = sorted(path.name for path in (place / "runs").iterdir())
    assert len(runs) == 3
    times = {name: (place / "runs" / name / "metrics.jsonl").stat().st_mtime_ns for name in runs}
    found = ask(place, settings)
    assert {name: (place / "runs" / name / "metrics.jsonl").stat().st_mtime_ns for name in runs} == times
    small, large = found.points
    assert found.fit is not None
    assert 32 < min(small.samples) < min(large.samples)
    assert min(large.samples) / 512 < min(small.samples) / 32
    assert {run.seed for run in small.runs} == {2, 3}
    assert small.runs[0].final["validation_loss"] < 1.5
    assert any("a third" in sentence for sentence in sentences(found))

    pictures = plots.draw(found, place)
    report.write(found, place, pictures)
    assert pictures == ["cost", "front", "generalisation", "curves"]
    assert all((place / "plots" / f"{name}.svg").read_text().startswith("<?xml") for name in pictures)
    assert list((place / "tensorboard").iterdir())
    said = json.loads((place / "study.json").read_text(), parse_constant=pytest.fail)
    assert read_shown(place) == (shown(found), sentences(found))
    assert [row["batch"] for row in said["batches"]] == [32, 512]
    assert said["batches"][0]["samples_to_target"] == pytest.approx(sum(small.samples) / 2)
    again = ask(place, settings)
    assert report.as_json(again) == report.as_json(found)
    check_sharpness(found, place)

    before = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match=r"recipe: optimizer.lr: 0.1 -> 0.2"):
        ask(place, settings, "optimizer.lr=0.2")
    with pytest.raises(InputError, match=r"--target: loss=0.7 -> loss=0.6"):
        ask(place, Settings((32, 512), "loss", 0.6, rates=3, seeds=2))
    assert {path: path.read_bytes() for path in place.rglob("*") if path.is_file()} == before
    (place / SETTINGS).write_text('{"format": 99, "disttrain": "9.9"}')
    with pytest.raises(InputError, match=r"is of disttrain 9\.9"):
        ask(place, settings)
    shutil.rmtree(place / "runs")


def begin(place: Path, recipe: disttrain.Recipe, settings: Settings) -> None:
    with open_study(place, recipe, settings):
        pass


def test_one_that_was_killed_while_it_was_made_goes_on(tmp_path: Path) -> None:
    recipe, two = disttrain.Recipe.load(None, *SMALL, HELD), Settings((32, 64), "loss", 0.7)
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match=r"--out .*mine\.txt cannot be made: .*mine\.txt is not a directory"):
        begin(tmp_path / "mine.txt", recipe, two)
    (tmp_path / "mine.txt").unlink()
    (tmp_path / ".settings.json.tmp").write_text("{")
    (tmp_path / ".lock").touch()
    begin(tmp_path, recipe, two)
    (tmp_path / "recipe.yaml").unlink()
    begin(tmp_path, recipe, two)
    assert disttrain.Recipe.load(tmp_path / "recipe.yaml") == recipe
    (tmp_path / "recipe.yaml").unlink()
    (tmp_path / "runs").mkdir()
    with pytest.raises(InputError, match="is missing, so there is no telling"):
        begin(tmp_path, recipe, two)


def test_one_study_at_a_time_in_a_directory(tmp_path: Path) -> None:
    recipe, two = disttrain.Recipe.load(None, *SMALL, HELD), Settings((32, 64), "loss", 0.7)
    with open_study(tmp_path, recipe, two):
        before = (tmp_path / SETTINGS).read_bytes()
        with pytest.raises(InputError, match=r"process \d+ on host .* is at a study there; .* choose another --out"):
            begin(tmp_path, recipe, replace(two, batches=(32, 128)))
        assert (tmp_path / SETTINGS).read_bytes() == before
    begin(tmp_path, recipe, two)
    for now, said in ((replace(two, metric="accuracy"), "accuracy=0.7"), (replace(two, value=None), r"\(default\)")):
        with pytest.raises(InputError, match=f"given\\):\n  --target: loss=0.7 -> {said}\nundo that"):
            begin(tmp_path, recipe, now)


def test_the_law_of_the_rate_is_the_recipes_or_the_optimizers() -> None:
    invariant = "{name: batch_invariant_adam, lr: 0.01, slice: 8, reference_batch: 8, lr_scaling: %s}"
    for optimizer, law, wanted in (
        ("{name: lars, lr: 0.1}", "auto", 4.0),
        ("{name: novograd, lr: 0.1}", "auto", 2.0),
        ("{name: novograd, lr: 0.1, lr_scaling: linear, reference_batch: 64}", "auto", 4.0),
        ("{name: adamw, lr: 0.1}", "linear", 4.0),
        (invariant % "none", "auto", 4.0),
        (invariant % "carry", "none", 1.0),
    ):
        recipe = disttrain.Recipe.load(None, *SMALL, HELD, f"optimizer={optimizer}")
        base = make_base(recipe, Settings((64, 256), law=law))
        assert base.peak(256) / base.peak(64) == pytest.approx(wanted), optimizer
    recipe = disttrain.Recipe.load(None, *SMALL, HELD, f"optimizer={invariant % 'none'}")
    with pytest.raises(InputError, match="lr_scaling"):
        make_base(recipe, Settings((64, 256), law="sqrt"))


class Unsaid(Digits):
    """Does not say beforehand what is measured."""

    metric_names = ()


def test_an_unknown_metric_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--target 'acuracy'; task digits has loss, accuracy; did you mean"):
        ask(tmp_path / "c", Settings((32, 64), "acuracy", 0.7))
    assert list(tmp_path.iterdir()) == []


def test_a_budget_in_which_no_target_can_be_reached_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    recipe = disttrain.Recipe.load(None, *SMALL, HELD)
    # 1,150 samples are an epoch, and its last batch is short: batch 512 sees 512, 1024 and 1150.
    for batches, budget, every, said in (
        (
            (32, 64),
            400,
            200,
            "32: evaluated every 200 .* of 400 .* has 2 evaluations, .* 608 or more, or a smaller --every",
        ),
        ((32, 64), 4000, 9000, "32: .* has 1 evaluation, .* 27,026 or more, or a smaller --every"),
        ((32, 512), 1024, 1, "512: evaluated every 512 .* has 2 .* 1,150 or more, or smaller --batches"),
    ):
        with pytest.raises(InputError, match=f"--batches {said}"):
            ask(tmp_path / "a", Settings(batches, "loss", 0.7, budget=budget, every=every))
    for batches, budget, every in (((32, 64), 450, 200), ((32, 512), 1025, 1)):
        make_base(recipe, Settings(batches, "loss", 0.7, budget=budget, every=every))
    with pytest.raises(InputError, match=r"half of its length, .*: give a --target, or a larger --budget"):
        ask(tmp_path / "a", Settings((32, 64), budget=2000, every=100))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_rates_that_all_diverge_end_a_study_before_its_results(tmp_path: Path) -> None:
    told: list[str] = []

    def run(settings: Settings) -> None:
        recipe = disttrain.Recipe.load(None, *SMALL, HELD, "optimizer.lr=1e30")
        study(
            recipe, settings, tmp_path / str(settings.value), done=lambda t, o: told.append(ended(o)), say=told.append
        )

    with pytest.raises(
        InputError, match=r"diverged, at every batch \(.* batch 32: [\d.e+]+; 64: .*lower optimizer\.lr"
    ):
        run(Settings((32, 64), "loss", 1.0, rates=3, seeds=2))
    assert sum(line.startswith("diverged in update") for line in told) == 6
    assert not any(line.startswith("results") for line in told)
    told.clear()
    with pytest.raises(InputError, match=r"the recipe as it is diverges, so .*: lower optimizer\.lr, or give --target"):
        run(Settings((32, 64)))
    assert [line.startswith("diverged in update") for line in told] == [False, True, True, True]
    assert max(map(len, told)) < 60


@pytest.mark.slow
def test_what_is_no_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="compares at least 2"):
        Settings((64,))
    two = Settings((32, 64), "loss", 0.7)
    with pytest.raises(InputError, match=r"add data\.validation"):
        study(disttrain.Recipe.load(None, *SMALL), two, tmp_path / "a", done=print, say=print)
    with pytest.raises(InputError, match="--batches 5000: the global batch is 5000"):
        ask(tmp_path / "a", Settings((32, 5000)))
    with pytest.raises(InputError, match=r"batch\.growth"):
        ask(tmp_path / "a", two, "batch.growth={kind: linear, max: 128, epochs: 1}")
    adaptive = ["batch.adaptive={policy: norm_test, max: 128, every: 8}", "noise_scale={every_steps: 1, slice: 8}"]
    with pytest.raises(InputError, match=r"batch\.adaptive changes the batch"):
        ask(tmp_path / "a", two, *adaptive)
    for wrong in ({"budget": 10**22}, {"every": 0}, {"seeds": 10**9}):
        with pytest.raises(InputError, match=f"--{next(iter(wrong))} .*expected"):
            Settings((32, 64), **wrong)
    assert not (tmp_path / "a").exists()
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="holds no study"):
        ask(tmp_path / "b", two)
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["mine.txt"]
    with pytest.raises(InputError, match="no such metric: mine; there are loss, accuracy"):
        ask(tmp_path / "c", Settings((32, 64), "mine", 0.7), "task.name=tests.unit.study.test_study:Unsaid")
    with pytest.raises(
        InputError, match="every batch has reached validation loss at most 1000 at its first evaluation"
    ):
        ask(tmp_path / "e", Settings((32, 64), "loss", 1000.0, rates=3, seeds=2, budget=2000, every=200))
    with pytest.raises(InputError, match=r"no batch has reached validation accuracy at least 2 .*closest, 32: 0\.\d"):
        ask(tmp_path / "d", Settings((32, 64), "accuracy", 2.0, rates=3, seeds=2, budget=600, every=150))
