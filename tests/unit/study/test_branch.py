"""Branches of a run: their recipes, where they end, what they find, and what is refused with every file as it was."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import disttrain
from disttrain.checkpoint import list_checkpoints, load_checkpoint, run_lock
from disttrain.cli.branch import branch as run_command
from disttrain.config import saved_recipe
from disttrain.config.reading.load import check_recipe
from disttrain.data.position import Position
from disttrain.errors import InputError
from disttrain.study.branch import Question, _prepare, branch
from disttrain.study.branch_points import Point, end_of, length_of
from disttrain.study.branch_recipe import branch_recipe, law_of, plan_of
from disttrain.study.branch_report import as_json, in_words, write
from disttrain.study.branch_settings import check_out, identity
from disttrain.study.exact import SolvedQuadratic, exact_branch
from disttrain.study.trials import Trial, read_outcome, run_trial
from disttrain.tasks.quadratic import NoisyQuadratic

RECIPE: dict[str, Any] = {
    "task": {"name": "noisy_quadratic", "dimension": 8, "train_samples": 4096},
    "batch": {"global": 16},
    "samples": 4096,
    "data": {"order": "replacement"},
    "optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.5},
    "checkpoint": {"every_steps": 64, "keep": 10, "best": False},
    "evaluate": {"samples": 1024, "train": False},
    "log": {"sinks": []},
}


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "quadratic"
    disttrain.train(RECIPE, run_dir=path, quiet=True)
    return path


def changed(**more: Any) -> Any:
    return check_recipe({**RECIPE, **more})


def test_the_rate_is_the_runs_own_function_of_the_samples_times_the_law() -> None:
    schedule = {"warmup": {"updates": 20}, "decay": {"kind": "step", "every": {"updates": 50}, "gamma": 0.5}}
    optimizer = {"name": "sgd", "lr": 0.4, "reference_batch": 64, "lr_scaling": "legw", "momentum": 0.0}
    recipe = changed(schedule=schedule, optimizer=optimizer, samples=None, updates=256)
    plan = plan_of(recipe)
    four = branch_recipe(recipe, plan, 4, "sqrt", repeat=0, start=1024, end=2048)
    other = plan_of(four)
    assert (four.batch.global_, four.seed, four.evaluate.train) == (64, recipe.seed + 1, False)  # type: ignore[union-attr]
    assert (other.warmup_samples, other.total_samples) == (plan.warmup_samples, plan.total_samples)
    for samples in (0, 100, 320, 1000, 1600, 4000):
        assert other.lr(samples) == pytest.approx(2 * plan.lr(samples))


def test_the_law_follows_the_optimizer() -> None:
    assert law_of(changed(), "auto") == "linear"
    given = {
        "sgd": {},
        "lars": {},
        "adamw": {},
        "novograd": {},
        "batch_invariant_adam": {"reference_batch": 16, "slice": 16},
    }
    laws = {name: law_of(changed(optimizer={"name": name, "lr": 0.1, **more}), "auto") for name, more in given.items()}
    assert [name for name, law in laws.items() if law == "linear"] == ["sgd", "lars", "batch_invariant_adam"]
    assert {laws["adamw"], laws["novograd"]} == {"sqrt"}
    assert law_of(changed(), "none") == "none"
    with pytest.raises(InputError, match="yours to say"):
        law_of(changed(optimizer={"name": "my.own:Optimizer", "lr": 0.1}), "auto")


def test_ends_are_reached_by_every_batch() -> None:
    plan = plan_of(changed(batch={"global": 10}, task={**RECIPE["task"], "train_samples": 1004}))
    for offset, length in ((0, 5), (500, 100), (700, 310), (700, 2500), (1000, 1)):
        start = Position(epoch=2, offset=offset, samples=2 * 1004 + offset)
        end = end_of(start, length, plan, 8)
        assert end >= start.samples + min(length, 4)
        for factor in (1, 2, 4, 8):
            seen, batch = start.samples, 10 * factor
            while seen < end:
                seen += min(batch, 1004 - seen % 1004)
            assert seen == end
    assert [length_of(text, plan) for text in ("samples=7", "0.5epochs", "3 updates")] == [7, 502, 30]
    for text in ("7", "samples=0", "epochs=1.2.3", "-1epochs"):
        with pytest.raises(InputError, match="--length"):
            length_of(text, plan)


def test_a_branch_goes_on_with_everything(run_dir: Path, tmp_path: Path) -> None:
    """At the run's own batch and order it is the run itself, momentum included."""
    recipe = saved_recipe(run_dir, trust=False)
    same = branch_recipe(recipe, plan_of(recipe), 1, "sqrt", repeat=-1, start=1024, end=2048)
    trial = Trial(same, tmp_path / "same")
    _prepare(trial, Point(64, list_checkpoints(run_dir)[64], 1024, 2048))
    run_trial(trial)
    mine = load_checkpoint(list_checkpoints(trial.run_dir)[128])
    theirs = load_checkpoint(list_checkpoints(run_dir)[128])
    assert mine.model["w"].equal(theirs.model["w"])
    outcome = read_outcome(trial.run_dir)
    assert outcome is not None
    assert (outcome.state, outcome.samples) == ("stopped", 2048)


def files(path: Path) -> dict[str, tuple[str, int]]:
    """What they hold, and when they were written."""
    return {
        str(file.relative_to(path)): (hashlib.sha256(file.read_bytes()).hexdigest(), file.stat().st_mtime_ns)
        for file in sorted(path.rglob("*"))
        if file.is_file()
    }


@pytest.mark.slow
def test_branches_find_what_is_exact_and_are_not_run_again(run_dir: Path, tmp_path: Path) -> None:
    out, said = tmp_path / "out", list[str]()
    question = Question((2, 4, 8), "64", "samples=1024", "sqrt", margin=0.006, repeats=2)
    answers = branch(run_dir, question, out, said=said.append)
    assert len(said) == 8
    task = NoisyQuadratic(dimension=8, train_samples=4096)
    solved = SolvedQuadratic(task.curvature, task.variance)
    state = load_checkpoint(list_checkpoints(run_dir)[64])
    buffer = state.state["optimizer"]["state"][0]["momentum_buffer"].double().numpy()
    begin = solved.begin(state.model["w"].double().numpy(), buffer)
    for factor, losses in answers[0].losses.items():
        exact = solved.loss(solved.after(begin, 1024, 16 * factor, 0.05 * math.sqrt(factor), 0.5))
        assert np.mean(losses) == pytest.approx(exact, abs=0.004)
    exact = exact_branch(solved, begin, 1024, 16, 0.05, math.sqrt, 0.006, [16, 32, 64, 128], 0.5)
    assert answers[0].crossing.where == "between"
    assert answers[0].crossing.low < exact / 16 < answers[0].crossing.high

    assert branch(run_dir, question, out, said=said.append) == answers
    assert len(said) == 8, "nothing was run again"
    shutil.rmtree(out / "step-00000064" / "4x-1")  # as if it had been stopped before that
    assert branch(run_dir, question, out, said=said.append) == answers
    assert len(said) == 9
    assert "critical batch" in in_words(answers[0], 0.006)
    assert [point["batch"] for point in json.loads(as_json(answers, question))["points"]] == [16]
    pytest.importorskip("matplotlib", reason="the picture is drawn where matplotlib is installed")
    assert [path.name for path in write(out, answers, question)] == ["critical_batch.json", "critical_batch.svg"]
    other = Question((2, 4), "64", "samples=1024", "sqrt", repeats=1)
    before = files(out)
    with pytest.raises(InputError, match=r"other branches[^$]*--batches: 2x,4x,8x -> 2x,4x\n"):
        branch(run_dir, other, out)
    assert files(out) == before


def test_without_a_validation_part_the_training_loss_counts(tmp_path: Path) -> None:
    recipe = {
        "task": {"name": "synthetic", "shape": [4], "classes": 3, "train_samples": 256, "test_samples": 32},
        "model": {"name": "mlp", "hidden": [4]},
        "batch": {"global": 8},
        "epochs": 2,
        "optimizer": {"name": "adamw", "lr": 0.01},
        "log": {"sinks": []},
    }
    disttrain.train(recipe, run_dir=tmp_path / "run", quiet=True)
    question = Question((2,), "newest", "samples=64", repeats=1)
    (answer,) = branch(tmp_path / "run", question)
    lines = [
        json.loads(line)
        for line in (tmp_path / "run/branches/step-00000064/2x-0/metrics.jsonl").read_text().splitlines()
    ]
    assert answer.split == "train"
    assert [line for line in lines if "split" in line] == [], "nothing is evaluated, and so no test set"
    assert answer.losses[2] == [
        next(line["loss"] for line in lines if line.get("samples") == 512 + 64 and "loss" in line)
    ]
    assert "one repeat gives no interval" in in_words(answer, 0.01)


REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "a batch above the train set": ({}, {"factors": (2, 512)}, "choose smaller --batches"),
    "no multiple": ({}, {"factors": (1, 2)}, "from 2x on"),
    "no such checkpoint": ({}, {"at": "65"}, "no checkpoint of update 65"),
    "no words for a checkpoint": ({}, {"at": "last"}, "expected newest, best, all"),
    "no length": ({}, {"length": "-5samples"}, "--length -5samples: expected"),
    "a law": ({}, {"law": "cubic"}, "expected auto, linear, sqrt or none"),
    "a margin that is no number": ({}, {"margin": math.nan}, "--margin nan"),
    "a batch that grows": (
        {"batch": {"global": 16, "growth": {"kind": "linear", "end": 64, "samples": 1024}}},
        {},
        "a batch that changes",
    ),
    "AdaScale": (
        {"optimizer": {"name": "sgd", "lr": 0.1, "reference_batch": 8, "lr_scaling": "adascale"}},
        {},
        "adascale",
    ),
    "stages": ({"stages": [{"updates": 3}, {}]}, {}, "stages"),
    "a batch of the ranks": ({"batch": {"per_rank": 16}}, {}, "batch.per_rank"),
    "a schedule that is over": ({"schedule": {"decay": {"kind": "cosine"}}}, {}, "leaves 0 of the run's"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_branched_is_refused(case: str, run_dir: Path, tmp_path: Path) -> None:
    recipe, question, message = REFUSED[case]
    there = tmp_path / "run"
    shutil.copytree(run_dir, there)
    check_recipe({**RECIPE, **recipe}).save(there / "recipe.yaml")
    before = files(there)
    with pytest.raises(InputError, match=message):
        branch(there, Question(**{"factors": (2, 4), "length": "samples=64", **question}))
    assert files(there) == before


def test_a_directory_that_is_no_finished_run_is_refused(run_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="each with an x"):
        run_command(Path("nowhere"), batches="128")
    with pytest.raises(InputError, match="holds no run"):
        branch(tmp_path, Question())
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="something else"):
        branch(run_dir, Question(), tmp_path / "out")
    there = tmp_path / "run"
    shutil.copytree(run_dir, there)
    with run_lock(there):
        before = files(there)
        with pytest.raises(InputError, match="is using this run directory"):
            branch(there, Question())
        assert files(there) == before
    (tmp_path / "busy").mkdir()
    with run_lock(tmp_path / "busy"), pytest.raises(InputError, match=r"is running branches there; .* another --out"):
        branch(there, Question(at="256", length="samples=64"), tmp_path / "busy")
    (next(iter(list_checkpoints(there).values())) / "manifest.json").write_text("{}")
    with pytest.raises(InputError, match="manifest"):
        branch(there, Question(at="256", length="samples=64"))
    shutil.rmtree(there / "checkpoints")
    with pytest.raises(InputError, match="no checkpoint to branch from"):
        branch(there, Question())


def test_branches_of_another_question_are_refused_with_what_was_and_what_is(tmp_path: Path) -> None:
    before = identity(changed(), Question(length=None), "linear")
    (tmp_path / "branches.json").write_text(json.dumps(before))
    check_out(tmp_path, before)
    recipe = changed(optimizer={**RECIPE["optimizer"], "lr": 0.07})
    with pytest.raises(InputError) as refused:
        check_out(tmp_path, identity(recipe, Question((2, 4), length="samples=64"), "sqrt"))
    assert str(refused.value).splitlines()[1:-1] == [
        f"  recipe: optimizer.lr: {RECIPE['optimizer']['lr']} -> 0.07",
        "  --batches: 2x,4x,8x -> 2x,4x",
        "  --length: (default) -> samples=64",
        "  --law: linear -> sqrt",
    ]


def test_one_that_was_killed_before_its_first_word_goes_on(tmp_path: Path) -> None:
    (tmp_path / ".branches.json.tmp").write_text("{")
    check_out(tmp_path, {"law": "linear"})
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="holds something else"):
        check_out(tmp_path, {"law": "linear"})


def test_what_does_not_lead_to_numbers_is_refused(tmp_path: Path) -> None:
    recipe = {**RECIPE, "samples": 1024, "optimizer": {"name": "sgd", "lr": 2.2, "momentum": 0.0}, "evaluate": None}
    disttrain.train(recipe, run_dir=tmp_path / "run", quiet=True)
    with pytest.raises(InputError, match="do not lead to a finite loss"):
        branch(tmp_path / "run", Question((2,), length="samples=16384", repeats=1))
    text = (tmp_path / "run" / "recipe.yaml").read_text()
    (tmp_path / "run" / "recipe.yaml").write_text(f"# disttrain 99.0\n{text.partition(chr(10))[2]}later_key: 1\n")
    with pytest.raises(InputError, match=r"written by disttrain 99\.0"):
        branch(tmp_path / "run", Question())
