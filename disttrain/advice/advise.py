"""From what is on the disk to advice, or to why there is none."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from disttrain.advice import of_run, of_study, speed
from disttrain.advice.evidence import Evidence, disagreements
from disttrain.advice.goodput import Choice, Option, allowed, best, candidates, front, options
from disttrain.advice.narrow import narrower
from disttrain.advice.speed import Speeds
from disttrain.advice.trained import check_alike, read_run
from disttrain.config import Recipe, check_recipe, flatten, load_recipe, recipe_differences
from disttrain.errors import InputError
from disttrain.rundir.rundir import RECIPE, RUNS
from disttrain.scaling.record import Scaling
from disttrain.scaling.record import load as load_scaling
from disttrain.study.asked import LAWS

STUDIES = Path("studies")
MOST = 1.5
"""Times the best that what is recommended may cost, in 95 % of the draws; beyond that nothing is recommended."""
SAME = ("task", "model", "precision")
"""Sections of a recipe on which throughput depends."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked.

    Attributes:
        places: a run directory, or several of one recipe with other seeds; a study's; or a recipe.
        scale: a directory that ``disttrain scale`` left; None: the run's or the study's own throughput.
        price: of a rank (a GPU) for an hour; None: costs are in GPU-hours.
        ranks, batches: that may be chosen; none: all that are known.
        target: a metric of the validation set and its value; None: the study's own, or where the run came at its end.
        law: of the rate, see :func:`disttrain.advice.rates.rate_of`.
    """

    places: tuple[Path, ...]
    scale: Path | None = None
    price: float | None = None
    ranks: tuple[int, ...] = ()
    batches: tuple[int, ...] = ()
    target: tuple[str, float] | None = None
    law: str = "auto"

    def __post_init__(self) -> None:
        if self.price is not None and not (math.isfinite(self.price) and self.price > 0.0):
            raise InputError(f"--price {self.price}: expected what a GPU costs an hour, above 0")
        if self.law not in ("auto", *LAWS):
            raise InputError(f"--law {self.law!r}: expected auto, {', '.join(LAWS)}")
        for name in ("ranks", "batches"):
            given = getattr(self, name)
            if any(not 1 <= number <= 10**9 for number in given):
                raise InputError(f"--{name} {','.join(map(str, given))}: expected numbers from 1 on, such as 1,2,4")


@dataclass(frozen=True, slots=True)
class Advice:
    """The answer.

    Attributes:
        evidence: of the statistical side; its ``cost`` is None where nothing is known.
        batches: that are spoken of.
        options: every (ranks, batch) that is known; empty: none is.
        chosen: what is recommended; None: nothing, and ``refusal`` says why.
        front: see :func:`disttrain.advice.goodput.front`.
        notes: sentences: where throughput comes from, what was left out.
        narrower: sentences: what would make the answer more certain.
    """

    question: Question
    evidence: Evidence
    batches: tuple[int, ...]
    options: tuple[Option, ...]
    chosen: Choice | None
    refusal: str
    front: tuple[Option, ...]
    notes: tuple[str, ...]
    narrower: tuple[str, ...]


def advise(question: Question, *, trust: bool = False) -> Advice:
    """Read, combine, and choose. Nothing is changed and nothing is trained.

    Args:
        trust: see :func:`disttrain.advice.of_run.evidence`.

    Raises:
        InputError: there is no such run, study, recipe or scaling, it is of another version, has not ended or has no such
            metric, or a batch or a number of ranks that was asked for is impossible.
    """
    random = np.random.default_rng(0)
    recipe, evidence, speeds = _known(question, random, trust)
    if question.scale is not None:
        scaling = load_scaling(question.scale)
        _same_model(recipe, scaling, question.scale)
        speeds = speed.of_scaling(scaling, random)
    batches = question.batches or tuple(candidates(evidence, speeds))
    ranks = question.ranks or tuple(sorted(speeds.steps))
    notes = [*_left_out(evidence, question.batches), *speeds.why]
    answer = Advice(question, evidence, batches, (), None, "", (), tuple(notes), evidence.narrower)
    if evidence.cost is None:
        return replace(answer, refusal=evidence.missing)
    batches = tuple(batch for batch in batches if allowed(evidence, batch))
    found = options(evidence, speeds, ranks, batches)
    answer = replace(answer, batches=batches, options=tuple(found), notes=(*notes, *_unknown(question, found)))
    if len({(o.ranks, o.batch) for o in found}) < 2:
        return replace(answer, refusal=_no_choice(found, question))
    chosen = best(found)
    answer = replace(answer, narrower=tuple(narrower(evidence, chosen, found)))
    if chosen.regret > MOST:
        return replace(answer, refusal=_too_uncertain(chosen))
    return replace(answer, chosen=chosen, front=tuple(front(found)))


def _known(question: Question, random: np.random.Generator, trust: bool) -> tuple[Recipe, Evidence, Speeds]:
    places = question.places
    if of_study.is_study(places[0]) and len(places) == 1:
        study = of_study.read_study(places[0], question.target)
        return study.recipe, of_study.evidence(study, question.law, random), speed.of_study(study, random)
    if places[0].is_file() and len(places) == 1:
        return _of_recipe(question, random, trust)
    for place in places:
        if not place.is_dir():
            raise InputError(
                f"{place}: expected a run directory, a study's directory or a RECIPE.yaml, and there is nothing"
            )
    runs = [read_run(place) for place in places]
    check_alike(runs)
    found = of_run.evidence(runs, question.target, question.law, random, trust=trust)
    return runs[0].recipe, found, speed.of_runs(runs, random)


def _of_recipe(question: Question, random: np.random.Generator, trust: bool) -> tuple[Recipe, Evidence, Speeds]:
    """From the study and the newest run of the recipe's name, where they are of this very recipe."""
    recipe = load_recipe(question.places[0])
    name = recipe.name or question.places[0].stem
    runs = [
        path.parent
        for pattern in (name, f"{name}-*")
        for path in RUNS.glob(f"{pattern}/{RECIPE}")
        if not recipe_differences(load_recipe(path), recipe)
    ]
    study = STUDIES / name
    places = [study] if of_study.is_study(study) and not recipe_differences(load_recipe(study / RECIPE), recipe) else []
    places += [max(runs, key=lambda path: path.stat().st_mtime)] if runs else []
    if not places:
        return recipe, _nothing(question, name), Speeds()
    _, evidence, speeds = _known(replace(question, places=(places[0],)), random, trust)
    for other in places[1:]:  # the newest run beside a study: what does it say?
        _, second, _ = _known(replace(question, places=(other,), target=None), random, trust)
        criticals = (*evidence.criticals, *second.criticals)
        evidence = replace(evidence, criticals=criticals, reasons=(*evidence.reasons, *disagreements(criticals)))
    return recipe, evidence, speeds


def _nothing(question: Question, name: str) -> Evidence:
    recipe = question.places[0]

    def rate(batch: int) -> tuple[float, str]:
        raise ValueError(f"nothing is known of batch {batch}")

    return Evidence(
        source="noise scale",
        target="",
        cost=None,
        limits=(0.0, 0.0),
        batches=(),
        train_samples=0,
        rate=rate,
        criticals=(),
        missing=f"nothing was measured of this recipe: there is neither {STUDIES / name} nor {RUNS / name}",
        narrower=(
            f"a run that measures its noise scale: disttrain train {recipe} "
            f"'noise_scale={{every_steps: 10}}' --run-dir {RUNS / name}",
            f"or a study: disttrain study {recipe} --batches 64,256,1024",
        ),
    )


def _same_model(recipe: Recipe, scaling: Scaling, directory: Path) -> None:
    """Refuse throughput of something else.

    Raises:
        InputError: naming what differs.
    """
    own, other = flatten(recipe), flatten(check_recipe(scaling.recipe))
    differ = [
        key
        for key in dict.fromkeys([*own, *other])
        if key.partition(".")[0] in SAME and key != "task.root" and own.get(key) != other.get(key)
    ]
    if differ:
        lines = "".join(f"\n  {key}: {other.get(key, '(absent)')} -> {own.get(key, '(absent)')}" for key in differ)
        raise InputError(f"--scale {directory} is of another model (measured -> this):{lines}\nmeasure this one")


def _left_out(evidence: Evidence, asked: Sequence[int]) -> list[str]:
    left = [batch for batch in asked if not allowed(evidence, batch)]
    if not left or evidence.cost is None:
        return []
    low, high = evidence.limits
    return [
        f"left out: batch {', '.join(f'{b:,}' for b in left)}; this {evidence.source} is relied upon from {low:,.0f} to "
        f"{min(high, evidence.train_samples):,.0f}"
    ]


def _unknown(question: Question, found: Sequence[Option]) -> list[str]:
    """What was asked for and has no throughput."""
    known = {option.ranks for option in found}
    missing = [ranks for ranks in question.ranks if ranks not in known]
    return [f"no throughput is known on {', '.join(map(str, missing))} ranks"] if missing else []


def _no_choice(found: Sequence[Option], question: Question) -> str:
    wanted = (
        "" if question.scale is not None else ": measure it with disttrain scale, and give its directory as --scale"
    )
    if not found:
        return f"no throughput is known for these ranks and batches{wanted}"
    only = found[0]
    return (
        f"throughput is known for batch {only.batch:,} on {only.ranks} rank{'s' * (only.ranks > 1)} alone, so there is nothing "
        f"to choose between{wanted}"
    )


def _too_uncertain(choice: Choice) -> str:
    option, rival = choice.option, choice.rival or choice.option
    return (
        f"what was measured is too uncertain to choose: {option.name} has the best estimate, and may be {choice.regret:.3g} "
        f"times worse than the best, such as {rival.name}"
    )
