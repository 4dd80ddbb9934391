"""What a study knows: samples to a target at several batches, over seeds, each at its best rate."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from disttrain.advice.draws import Draws, of_values
from disttrain.advice.evidence import Between, Critical, Evidence, Hyperbola
from disttrain.advice.rates import between, rate_of
from disttrain.config import Recipe, load_recipe
from disttrain.errors import InputError
from disttrain.rundir.rundir import RECIPE
from disttrain.study.fit import Curves, Fit, curves, fit_hyperbola
from disttrain.study.goal import Goal, reached_at
from disttrain.study.settings import SETTINGS, read_settings
from disttrain.study.words import critical_batch, number, spoken

RESULTS = "study.json"
BEYOND = 2.0
"""Times the batches that were run, outside which a study is not relied upon."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A batch of a study.

    Attributes:
        samples: to the target, of the runs that have reached it.
        runs: how many there were.
        speeds: samples per second of each.
    """

    batch: int
    rate: float
    better: float
    samples: tuple[float, ...]
    runs: int
    speeds: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class ReadStudy:
    """A study on the disk.

    Attributes:
        ranks: of each of its runs; ``jobs``: runs at once.
        length: of the recipe, in samples.
    """

    path: Path
    recipe: Recipe
    goal: Goal
    ranks: int
    jobs: int
    length: int
    points: tuple[Measured, ...]


def is_study(directory: Path) -> bool:
    return (directory / SETTINGS).is_file()


def read_study(directory: Path, target: tuple[str, float] | None) -> ReadStudy:
    """Read a study, with another target of the same metric if one is given.

    Raises:
        InputError: it has not ended, is of another version, or has no such metric.
    """
    settings = read_settings(directory)
    if "batches" not in settings:
        raise InputError(f"{directory} holds no study: its {SETTINGS} is that of something else")
    path = directory / RESULTS
    try:
        recipe = load_recipe(directory / RECIPE)
        data: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        given = data["target"]
        goal = Goal(str(given["metric"]), float(given["value"]), bool(given["higher"]))
        if target is not None and target[0] != goal.metric:
            raise InputError(
                f"--target: the curves of {directory} are of validation {goal.metric}, and not of {target[0]}"
            )
        goal = goal if target is None else Goal(goal.metric, target[1], goal.higher)
        points = tuple(_point(point, goal) for point in data["batches"])
        ranks, jobs, length = int(settings["ranks"]), int(settings["jobs"]), int(data["length"])
    except FileNotFoundError:
        raise InputError(
            f"{directory}: {RESULTS} is missing: the study has not ended; the same command goes on"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: cannot be read as a study of this version: {error!r}") from None
    return ReadStudy(directory, recipe, goal, ranks, jobs, length, points)


def _point(point: Mapping[str, Any], goal: Goal) -> Measured:
    found = [reached_at([(int(s), _number(v)) for s, v in run["curve"]], goal) for run in point["runs"]]
    speeds = [1.0 / run["seconds_per_sample"] for run in point["runs"] if run["seconds_per_sample"]]
    return Measured(
        batch=int(point["batch"]),
        rate=float(point["rate"]),
        better=float(point["better"]),
        samples=tuple(samples for samples in found if samples is not None),
        runs=len(found),
        speeds=tuple(speeds),
    )


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)


def evidence(study: ReadStudy, law: str, random: np.random.Generator) -> Evidence:
    """The hyperbola if it fits, or else what lies between the batches that were run."""
    whole = [point for point in study.points if point.samples and len(point.samples) == point.runs]
    batches = tuple(point.batch for point in whole)
    arguments = (batches, [point.samples for point in whole], [point.better for point in whole])
    fit, found = fit_hyperbola(*arguments), curves(*arguments)
    rates = [(point.batch, point.rate) for point in study.points]
    law = study.recipe.optimizer.law or "sqrt" if law == "auto" else law  # as the study's search began
    law_rate = rate_of(study.recipe, rates[0][0], rates[0][1], study.length, law)
    reasons = [f"{study.path}: {len(whole)} batches ({', '.join(f'{b:,}' for b in batches)}) have reached {study.goal}"]
    left = [p.batch for p in study.points if p not in whole]
    if left:
        reasons.append(f"left out, because not all of their runs reached it: {', '.join(f'{b:,}' for b in left)}")
    base = Evidence(
        source="study",
        target=str(study.goal),
        cost=None,
        limits=(0.0, 0.0),
        batches=batches,
        train_samples=_train_samples(study),
        rate=between(rates, law_rate),
        criticals=(),
        reasons=tuple(reasons),
        missing="a forecast takes two batches that have reached the target with every seed: give an easier --target",
    )
    if fit is None or found is None:
        return base
    return _with_cost(base, fit, found, whole, random)


def _train_samples(study: ReadStudy) -> int:
    return study.recipe.data.train_samples or 10**15


def _with_cost(base: Evidence, fit: Fit, found: Curves, whole: list[Measured], random: np.random.Generator) -> Evidence:
    ends, critical = (base.batches[0], base.batches[-1]), fit.critical_batch
    if not fit.fits:
        points: list[tuple[int, Draws]] = [(p.batch, of_values(p.samples, random)) for p in whole]
        said = f"no hyperbola fits them (p = {fit.p_value:.2g}), so only batches from {ends[0]:,} to {ends[1]:,} are compared"
        return replace(
            base,
            cost=Between(tuple(points)),
            limits=ends,
            reasons=(*base.reasons, said),
            missing="",
            narrower=("more --seeds of the study",),
            scatter=fit.scatter,
        )
    words = f"study: {critical_batch(critical)}, least samples {spoken(fit.least_samples)}"
    told = "" if fit.p_value is None else f"the hyperbola fits (p = {fit.p_value:.2g}), and "
    return replace(
        base,
        cost=Hyperbola(np.exp(found.least), found.critical),
        limits=(ends[0] / BEYOND, ends[1] * BEYOND),
        criticals=(Critical("study", critical.value, critical.low or 0.0, critical.high, words),),
        reasons=(*base.reasons, words, f"{told}one run's samples scatter by {number(100 * fit.scatter)} % over seeds"),
        missing="",
        scatter=fit.scatter,
    )
