"""What differs between two runs, and from which update on."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from disttrain.errors import InputError
from disttrain.rundir.compare import Comparison, Curve, Difference, compare
from disttrain.telemetry.jsonl import number_of

RECIPE = "task: {{name: digits}}\nbatch: {{global: 64}}\nepochs: 1\noptimizer: {{name: sgd, lr: {lr}}}\n"


def run(path: Path, losses: dict[int, Any], *, lr: float = 0.1, starts: list[dict[str, Any]] | None = None) -> Path:
    path.mkdir()
    (path / "recipe.yaml").write_text(RECIPE.format(lr=lr))
    records = [{"event": "start", "step": 0, "loss": 3.0}]
    records += [{"step": step, **(loss if isinstance(loss, dict) else {"loss": loss})} for step, loss in losses.items()]
    records += [{"split": "test", "step": 9, "epoch": 1.0, "samples": 9, "accuracy": 0.5, "time": "now"}]
    (path / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records) + '{"step": 99, "lo')
    if starts is not None:
        (path / "environment.jsonl").write_text("".join(json.dumps(s) + "\n" for s in starts))
    return path


def curve(found: Comparison, name: str) -> Curve:
    return next(c for c in found.curves if c.name == name)


def test_runs_that_are_alike_differ_in_nothing(tmp_path: Path) -> None:
    first, second = (run(tmp_path / name, {10: 2.0, 20: 1.0}) for name in "ab")
    found = compare(first, second)
    assert found.differences == []
    assert curve(found, "loss") == Curve("loss", 2, 20, None, None, None, 0.0, None)
    assert curve(found, "test accuracy").common == 1
    assert {c.name for c in found.curves} == {"loss", "test accuracy"}


def test_the_first_and_the_largest_difference(tmp_path: Path) -> None:
    first = run(tmp_path / "a", {10: 2.0, 20: 1.0, 30: 0.5, 40: 0.5, 45: 7.0})
    second = run(tmp_path / "b", {5: 9.0, 10: 2.0, 20: 1.0 + 2**-52, 30: 0.4, 40: 0.5}, lr=0.2)
    found = compare(first, second)
    assert found.differences == [Difference("recipe", "optimizer.lr", 0.1, 0.2)]
    assert curve(found, "loss") == Curve("loss", 4, 10, 20, 1.0, 1.0 + 2**-52, pytest.approx(0.2), 30)


def test_numbers_that_are_not_finite(tmp_path: Path) -> None:
    broken = {"loss": None, "loss_nonfinite": "nan"}
    first, second = run(tmp_path / "a", {10: broken, 20: broken}), run(tmp_path / "b", {10: broken, 20: 1.0})
    found = curve(compare(first, second), "loss")
    assert (found.same_until, found.differs_at, found.largest) == (10, 20, math.inf)


def test_steps_that_never_meet_are_said(tmp_path: Path) -> None:
    found = curve(compare(run(tmp_path / "a", {10: 1.0}), run(tmp_path / "b", {15: 1.0})), "loss")
    assert (found.common, found.same_until, found.differs_at) == (0, None, None)


def test_what_the_starts_ran_on(tmp_path: Path) -> None:
    old, new = ({"step": 0, "package": {"torch": version}, "machine": {"ranks": 2}} for version in ("1", "2"))
    first = run(tmp_path / "a", {10: 1.0}, starts=[old, {**new, "step": 10}])
    second = run(tmp_path / "b", {10: 1.0}, starts=[new, {**new, "step": 10}])
    assert compare(first, second).differences == [Difference("package", "torch", ["1", "2"], "2")]


def test_a_run_that_recorded_no_environment(tmp_path: Path) -> None:
    first, second = run(tmp_path / "a", {}, starts=[{"step": 0, "package": {"torch": "1"}}]), run(tmp_path / "b", {})
    assert compare(first, second).differences == [Difference("environment", "recorded", True, False)]


def test_directories_without_a_run_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no run: recipe\.yaml is missing"):
        compare(run(tmp_path / "a", {1: 1.0}), tmp_path / "none")


def test_what_is_no_number_is_passed_over() -> None:
    assert number_of({"loss": None, "loss_nonfinite": "inf"}, "loss") == float("inf")
    for record in ({"loss_nonfinite": "abc"}, {"loss": 10**400}, {"loss": True}, {"loss": "1"}, {}):
        assert number_of(record, "loss") is None
