"""Forecasts of `disttrain plan` against trainings at batches that they were not made from: samples to a target on validation.

    OMP_NUM_THREADS=1 DISTTRAIN_DATA=DIR python benchmarks/plan.py [fashion | text | table] [--work DIR]

``fashion``: forecasts from the study of benchmarks/critical_batch.md, and from the noise scale of single runs at batch 128, for
other batches. ``text``: a study of a character model at three batches, noise scales at one of them, and trainings at two others.
Rates are those that plan recommends. The test set decides nothing. Goes on where it was killed; what ``benchmarks/plan.json`` has
already is not run again. ``table`` prints what stands in ``benchmarks/plan.md``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
JSON = HERE / "plan.json"
NOISE_SEEDS, SEEDS = (21, 22, 23, 24, 25), (11, 12, 13, 14, 15)
"""Of the runs whose noise scale is measured, and of those that forecasts are held against; a case takes the first few of each."""


@dataclass(frozen=True)
class Case:
    """A model and its study.

    Attributes:
        study: its committed ``study.json``; recipe: of it.
        left_out: batches of the study without which it is asked for them.
        held_out: batches that it never saw.
        own: the batch of the runs whose noise scale is measured, and the rate there.
        beside: batches that these runs forecast.
        seeds: how many.
    """

    name: str
    study: Path
    recipe: Path
    left_out: tuple[int, ...]
    held_out: tuple[int, ...]
    own: tuple[int, float]
    beside: tuple[int, ...]
    slice: int
    seeds: int


FASHION = Case(
    "fashion",
    HERE / "critical_batch_study" / "study.json",
    HERE / "critical_batch_study.yaml",
    (128, 1024),
    (64, 256),
    (128, 0.2),
    (32, 64, 256, 512),
    16,
    5,
)
TEXT = Case(
    "text",
    HERE / "plan_study" / "study.json",
    HERE / "plan_study.yaml",
    (64,),
    (32, 128),
    (64, 0.0),
    (32, 128),
    8,
    3,
)


def recipe_of(case: Case) -> Any:
    from disttrain.config import load_recipe

    overrides = []
    if case is TEXT:
        overrides = [f"task.root={Path(os.environ['DISTTRAIN_DATA']) / 'tinyshakespeare' / 'input.txt'}"]
    return load_recipe(case.recipe, overrides)


def as_directory(case: Case, place: Path, without: Sequence[int] = ()) -> Path:
    """A study's directory made of what is committed of it."""
    from disttrain.rundir.rundir import write_recipe

    data = json.loads(case.study.read_text())
    data["batches"] = [point for point in data["batches"] if point["batch"] not in without]
    place.mkdir(parents=True, exist_ok=True)
    (place / "study.json").write_text(json.dumps(data))
    (place / "settings.json").write_text(json.dumps({"format": 1, "disttrain": data["disttrain"], **data["settings"]}))
    write_recipe(place, recipe_of(case))
    return place


def keep(line: dict[str, Any]) -> None:
    found = json.loads(JSON.read_text()) if JSON.exists() else []
    JSON.write_text("[\n" + ",\n".join(json.dumps(one) for one in [*found, line]) + "\n]\n")
    print(json.dumps(line), flush=True)


def known(**key: Any) -> list[dict[str, Any]]:
    lines = json.loads(JSON.read_text()) if JSON.exists() else []
    return [line for line in lines if all(line.get(name) == value for name, value in key.items())]


def asked(places: tuple[Path, ...], batches: Sequence[int], **more: Any) -> dict[int, dict[str, Any]]:
    """What plan says of each batch, and the source of it."""
    from disttrain.advice.advise import Question, advise
    from disttrain.advice.words import as_json

    found = as_json(advise(Question(places, batches=tuple(batches), **more)))
    return {row["batch"]: {**row, "source": found["source"], "critical": found["critical"]} for row in found["batches"]}


def train(case: Case, what: str, batch: int, rate: float, seed: int, work: Path, noise: bool = False) -> Path:
    """One run to the target, as a study's own are; its directory. It is in the JSON afterwards."""
    from disttrain.config.sections.noise_scale import NoiseSettings
    from disttrain.config.sections.recipe import Evaluate
    from disttrain.study.goal import Goal, reached_at
    from disttrain.study.settings import Settings
    from disttrain.study.trials import Trial, read_outcome, run_trial
    from disttrain.study.variants import make_base

    said = json.loads(case.study.read_text())
    goal = Goal(**{key: said["target"][key] for key in ("metric", "value", "higher")})
    settings = Settings(tuple(said["settings"]["batches"]), budget=said["budget"], every=said["every"])
    base = make_base(recipe_of(case), settings)
    trial = base.trial(work, "search", goal.metric, goal, batch=batch, exponent=0, seed=seed, most=base.budget)
    changes: dict[str, Any] = {
        "optimizer": trial.recipe.optimizer.model_copy(
            update={"lr": rate, "lr_scaling": "none", "reference_batch": None}
        ),
        "evaluate": Evaluate(samples=said["every"], batch=1000, train=False),
    }
    if noise:
        changes["noise_scale"] = NoiseSettings(every_steps=5, slice=case.slice)
        changes["log"] = trial.recipe.log.model_copy(update={"every_steps": 5})
    trial = Trial(trial.recipe.model_copy(update=changes), work / f"{case.name}-{what}-b{batch}-r{rate:.4g}-s{seed}")
    line = {"case": case.name, "what": what, "batch": batch, "rate": rate, "seed": seed}
    if known(**line) and not noise:
        return trial.run_dir
    began = time.process_time()
    if read_outcome(trial.run_dir) is None:
        run_trial(trial)
    outcome = read_outcome(trial.run_dir)
    assert outcome is not None
    if not known(**line):
        samples = reached_at(outcome.curve("validation", goal.metric), goal)
        keep({**line, "samples": samples, "why": outcome.why, "cpu_seconds": round(time.process_time() - began, 1)})
    return trial.run_dir


def try_out(case: Case, work: Path) -> None:
    """The forecasts, and the trainings that they are held against."""
    target = json.loads(case.study.read_text())["target"]
    with tempfile.TemporaryDirectory() as directory:
        part = asked((as_directory(case, Path(directory) / "part", case.left_out),), case.left_out)
        whole = asked((as_directory(case, Path(directory) / "whole"),), case.held_out)
    for what, rows in (("left out", part), ("study", whole)):
        for batch, row in rows.items():
            if not known(case=case.name, what=f"forecast: {what}", batch=batch):
                keep({"case": case.name, "what": f"forecast: {what}", **row})
    for batch, row in whole.items():
        for seed in SEEDS[: case.seeds]:
            train(case, "held out", batch, float(f"{row['rate']:.6g}"), seed, work)
    own, rate = case.own
    rate = rate or next(p["rate"] for p in json.loads(case.study.read_text())["batches"] if p["batch"] == own)
    places = [train(case, "own", own, rate, seed, work, noise=True) for seed in NOISE_SEEDS[: case.seeds]]
    wanted = (target["metric"], target["value"])
    for seed, given in [*((s, (p,)) for s, p in zip(NOISE_SEEDS, places, strict=False)), ("all", tuple(places))]:
        for batch, row in asked(given, case.beside, target=wanted).items():
            if not known(case=case.name, what="forecast: noise scale", batch=batch, seed=seed):
                keep({"case": case.name, "what": "forecast: noise scale", "seed": seed, **row})
    for line in known(case=case.name, what="forecast: noise scale", seed=NOISE_SEEDS[0]):
        for seed in SEEDS[: case.seeds]:
            rate = float(f"{line['rate']:.6g}")
            if not known(case=case.name, what="held out", batch=line["batch"], rate=rate, seed=seed):
                train(case, "by the law", line["batch"], rate, seed, work)


def study_text(work: Path) -> None:
    """The study of the character model, once. Its results end at the target, as those of a search do: a study's own go on for the
    recipe's length and look at the train set, which takes ten times as long here and is not asked for."""
    from disttrain.study import report
    from disttrain.study.fit import fit_hyperbola
    from disttrain.study.pool import Pool
    from disttrain.study.search import best_rate
    from disttrain.study.settings import Settings
    from disttrain.study.study import Found, _Work
    from disttrain.study.trials import read_outcome
    from disttrain.study.variants import make_base

    if TEXT.study.exists():
        return
    settings = Settings((16, 64, 256), rates=5, seeds=3, every=1500)
    base, place = make_base(recipe_of(TEXT), settings), work / "text-study"

    def done(trial: Any, outcome: Any) -> None:
        print(trial.run_dir.name, outcome.why, flush=True)

    with Pool() as pool:
        at_work = _Work(base, settings, place, pool, done)
        goal, origin = at_work.goal(print)
        points = []
        for batch, scores in at_work.search(goal).items():
            most = at_work._most(scores, 3.0)
            trials = [at_work._trial("search", goal, batch, best_rate(scores), s, most) for s in at_work.seeds]
            pool.run(trials, done)
            outcomes = [read_outcome(trial.run_dir) for trial in trials]
            runs = [at_work._result(t, o, goal) for t, o in zip(trials, outcomes, strict=True) if o is not None]
            points.append(at_work._point(batch, scores, runs))
    fit = fit_hyperbola([p.batch for p in points], [p.samples for p in points], [p.better for p in points])
    found = Found(settings, base, goal, origin, tuple(points), fit)
    TEXT.study.parent.mkdir(exist_ok=True)
    TEXT.study.write_text(json.dumps(report.as_json(found), indent=1, allow_nan=False) + "\n")


def measured(case: Case, batch: int, rate: float, what: str) -> list[float | None]:
    """Samples of each seed, of the study's or of ours at that rate."""
    if what == "left out":
        (point,) = (p for p in json.loads(case.study.read_text())["batches"] if p["batch"] == batch)
        return [run["samples"] for run in point["runs"]]
    rate = float(f"{rate:.6g}")
    return [
        line["samples"]
        for each in ("held out", "by the law")
        for line in known(case=case.name, what=each, batch=batch, rate=rate)
    ]


def table() -> str:
    """The results as Markdown."""
    lines = [
        "| case | source | batch | rate | samples forecast | samples trained (seeds) | forecast / trained |",
        "|---" * 7 + "|",
    ]
    for case in (FASHION, TEXT):
        for what in ("left out", "study", "noise scale"):
            every = known(case=case.name, what=f"forecast: {what}")
            for batch in dict.fromkeys(line["batch"] for line in every):
                of_batch = [line for line in every if line["batch"] == batch]
                lines += _rows(case, what, [line for line in of_batch if line.get("seed") in (None, "all")])
                lines += _rows(case, what, [line for line in of_batch if line.get("seed") not in (None, "all")])
    return "\n".join(lines)


def _rows(case: Case, what: str, forecasts: Sequence[dict[str, Any]]) -> list[str]:
    """One row for forecasts of one batch: of all there is, or the range over single runs."""
    if not forecasts:
        return []
    first = forecasts[0]
    samples = measured(case, first["batch"], first["rate"], what)
    reached = [each for each in samples if each is not None]
    mean = statistics.fmean(reached)
    values = [line["samples"]["value"] for line in forecasts]
    ends = first["samples"]
    said = f"{ends['value']:,.0f} ({ends['low']:,.0f} to {ends['high']:,.0f})"
    ratio = f"{ends['value'] / mean:.2f}"
    if len(forecasts) > 1:
        what = f"{what} of one run, {len(forecasts)} times"
        said = f"from {min(values):,.0f} to {max(values):,.0f}"
        ratio = f"{min(values) / mean:.2f} to {max(values) / mean:.2f}"
    elif "seed" in first:
        what = f"{what} of {case.seeds} runs"
    trained = f"{mean:,.0f} ± {statistics.stdev(reached):,.0f} ({len(reached)} of {len(samples)})"
    cells = (case.name, what, f"{first['batch']:,}", f"{first['rate']:.3g}", said, trained, ratio)
    return [f"| {' | '.join(cells)} |"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stage", choices=["fashion", "text", "table"])
    parser.add_argument("--work", type=Path, default=Path("runs/plan"))
    arguments = parser.parse_args()
    if arguments.stage == "fashion":
        try_out(FASHION, arguments.work)
    elif arguments.stage == "text":
        study_text(arguments.work)
        try_out(TEXT, arguments.work)
    print(table())


if __name__ == "__main__":
    main()
