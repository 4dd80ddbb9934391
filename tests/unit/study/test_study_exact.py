"""The critical batch of a study on a noisy quadratic, against the recursion of the expected loss."""

from __future__ import annotations

import statistics
from dataclasses import replace
from pathlib import Path

import pytest

import disttrain
from benchmarks import quadratic_study as benchmark
from disttrain.study.exact import SolvedQuadratic
from disttrain.study.fit import fit_hyperbola
from disttrain.study.study import study
from disttrain.study.words import doubling_batch
from disttrain.tasks.quadratic import NoisyQuadratic


@pytest.mark.slow
def test_a_study_is_within_a_fifth_of_its_exact_value(tmp_path: Path) -> None:
    settings = replace(benchmark.SETTINGS, rates=5, seeds=3)
    recipe = disttrain.Recipe.model_validate(benchmark.RECIPE)
    found = study(recipe, settings, tmp_path / "study", done=lambda trial, outcome: None, say=lambda line: None)
    task = NoisyQuadratic(**benchmark.TASK)
    solved, batches = SolvedQuadratic(task.curvature, task.variance), settings.batches
    exact = [benchmark.least_samples(solved, task.start, batch, found.goal.value) for batch in batches]
    measured = [statistics.fmean(point.samples) for point in found.points]
    assert found.fit is not None
    if found.fit.fits:
        through = fit_hyperbola(batches, [[e * 0.999, e * 1.001] for e in exact], [0.0] * len(exact))
        assert through is not None
        assert found.fit.critical_batch.value == pytest.approx(through.critical_batch.value, rel=0.2)
    here, there = (doubling_batch(list(zip(batches, each, strict=True))) for each in (measured, exact))
    assert here is not None
    assert there is not None
    assert here[0] == pytest.approx(there[0], rel=0.2)
