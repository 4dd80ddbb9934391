"""The fair table: optimizers at a large batch after equal tuning, on Fashion-MNIST and on signals in one dimension.

    OMP_NUM_THREADS=1 python benchmarks/large_batch.py [--tasks fashion signals] [--seeds 1 2 3]

Every row trains the same network (layer norm, so nothing depends on ranks or on how a batch is cut) for the same epochs, and
gets the same tuning: the same twelve points of a Sobol sequence, mapped to its own ranges of peak rate, length of the warmup and
weight decay (trust coefficient for LARS), on one seed. Accuracy on ``data.validation``, a tenth of the train set, chooses; the
test set is read for fresh seeds only, which tuned nothing. Rows by a rule are not tuned: they have the small batch's settings and
its rate times a power of the batches' ratio.

Everything is appended to ``large_batch.json`` as it comes, and what is there already is not run again. One process, one run
after the other, about 40 minutes in all on one core. The tables are printed at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

import disttrain
from disttrain.errors import DivergedError
from disttrain.tasks.base import Task
from disttrain.tasks.mnist import FashionMnist

sys.path.insert(0, str(Path(__file__).resolve().parent))
from signals import Signals

FILE = Path(__file__).with_suffix(".json")
TRIALS, TUNING_SEED = 12, 1001
WARMUP = (0.02, 0.3)
"""Shares of the run."""
Settings = dict[str, float]


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        rate, third: what the unit interval is mapped to, logarithmically; the third setting by its key.
        law: what a batch that grows instead of a decaying rate keeps; empty: the batch is constant.
        rule: the power of the batches' ratio that the small batch's rate is multiplied by; None: the row is tuned.
        decay: of the rate, where the batch is constant.
        of_job: what of the optimizer's section depends on the job.
    """

    what: str
    optimizer: dict[str, Any]
    rate: tuple[float, float]
    third: tuple[str, float, float]
    small: bool = False
    law: str = ""
    rule: float | None = None
    decay: str = "cosine"
    of_job: Callable[[Job], dict[str, Any]] = lambda job: {}


@dataclass(frozen=True)
class Job:
    """A task, its network, its batches (small, where one that grows begins, and large), epochs, and updates at the last."""

    make: Callable[[], Task]
    hidden: list[int]
    batches: tuple[int, int, int]
    epochs: int
    updates: int


JOBS = {
    "fashion": Job(FashionMnist, [64], (128, 512, 8192), 10, 70),
    "signals": Job(Signals, [64, 64], (64, 256, 2048), 20, 180),
}
_BARE = {"weight_decay_exclude": "bias_and_norm"}
_SGD = {"name": "sgd", "momentum": 0.9, "nesterov": True, **_BARE}
_ADAMW = {"name": "adamw", "betas": [0.9, 0.98], **_BARE}
_INVARIANT = {"name": "batch_invariant_adam", "betas": [0.9, 0.98], "lr_scaling": "none", **_BARE}
_FREE = {"name": "schedule_free:ScheduleFreeAdamW", "betas": [0.9, 0.98], **_BARE}
_L2, _DECOUPLED = ("weight_decay", 1e-5, 1e-2), ("weight_decay", 1e-3, 1.0)
ROWS = {
    "small": Row("SGD, small batch", _SGD, (0.005, 0.5), _L2, small=True),
    "sgd": Row("SGD", _SGD, (0.02, 2.0), _L2),
    "adamw": Row("AdamW", _ADAMW, (1e-3, 0.1), _DECOUPLED),
    "lars": Row(
        "LARS", {"name": "lars", "momentum": 0.9, "weight_decay": 1e-4}, (0.02, 2.0), ("trust_coefficient", 1e-2, 1.0)
    ),
    "lamb": Row("LAMB", {"name": "lamb", "betas": [0.9, 0.98]}, (5e-3, 0.5), _DECOUPLED),
    "novograd": Row("NovoGrad", {"name": "novograd", "betas": [0.95, 0.98]}, (5e-3, 0.5), ("weight_decay", 1e-4, 0.1)),
    "muon": Row("Muon", {"name": "muon", "betas": [0.9, 0.98]}, (1e-3, 0.1), _DECOUPLED),
    "invariant": Row(
        "Batch-invariant Adam, slices of the small batch",
        _INVARIANT,
        (5e-3, 0.5),
        _DECOUPLED,
        of_job=lambda job: {"reference_batch": job.batches[2], "slice": job.batches[0]},
    ),
    "free": Row(
        "Schedule-free AdamW, no decay of the rate",
        _FREE,
        (3e-3, 0.3),
        _DECOUPLED,
        decay="constant",
        of_job=lambda job: {"last": job.updates},
    ),
    "sgd-batch": Row("SGD, growing, keeps lr/B", _SGD, (0.02, 2.0), _L2, law="lr_over_batch"),
    "sgd-sqrt": Row("SGD, growing, keeps lr/sqrt(B)", _SGD, (0.02, 2.0), _L2, law="lr_over_sqrt_batch"),
    "adamw-batch": Row("AdamW, growing, keeps lr/B", _ADAMW, (1e-3, 0.1), _DECOUPLED, law="lr_over_batch"),
    "adamw-sqrt": Row("AdamW, growing, keeps lr/sqrt(B)", _ADAMW, (1e-3, 0.1), _DECOUPLED, law="lr_over_sqrt_batch"),
    **{
        f"rule-{name}": Row(f"SGD, small batch's settings, rate {said}", _SGD, (0.0, 0.0), _L2, rule=power)
        for name, said, power in (("none", "as it is", 0.0), ("sqrt", "times sqrt(k)", 0.5), ("linear", "times k", 1.0))
    },
}


PAIRS = (
    ("sgd-sqrt", "sgd-batch"),
    ("adamw-sqrt", "adamw-batch"),
    ("adamw-batch", "sgd-batch"),
    ("muon", "lamb"),
    ("lamb", "lars"),
    ("lars", "adamw"),
    ("novograd", "sgd"),
    ("invariant", "adamw"),
    ("free", "adamw"),
    ("free", "lamb"),
    ("muon", "free"),
)
"""Differences that the text speaks of, chosen before the fresh seeds were run."""


def trials(row: Row) -> list[Settings]:
    """The settings that a row is tuned over: the same points for every row, rounded to what the table can say."""
    points = torch.quasirandom.SobolEngine(3, scramble=True, seed=7).draw(TRIALS).tolist()
    low, high = WARMUP
    key, *third = row.third
    return [
        {
            "lr": float(f"{_logarithmic(*row.rate, x):.2g}"),
            "warmup": round(low + (high - low) * y, 2),
            key: float(f"{_logarithmic(*third, z):.2g}"),
        }
        for x, y, z in points
    ]


def _logarithmic(low: float, high: float, share: float) -> float:
    return float(low * (high / low) ** share)


def recipe(job: Job, row: Row, settings: Settings, seed: int) -> dict[str, Any]:
    """What is trained."""
    small, start, large = job.batches
    rates = {key: value for key, value in settings.items() if key != "warmup"}
    batch: dict[str, Any] = {"global": small if row.small else large}
    decay: dict[str, Any] = {"kind": row.decay}
    if row.law:
        batch = {"global": start, "growth": {"kind": "instead_of_decay", "max": large, "keep": row.law}}
        decay = {"kind": "exponential", "end": 0.01}
    return {
        "model": {"name": "mlp", "hidden": job.hidden, "norm": "layer"},
        "batch": batch,
        "epochs": job.epochs,
        "optimizer": {**row.optimizer, **row.of_job(job), **rates},
        "schedule": {"warmup": {"epochs": settings["warmup"] * job.epochs}, "decay": decay},
        "data": {"validation": {"fraction": 0.1}, "workers": 0},
        "evaluate": {"epochs": 100000, "batch": 10000},
        "log": {"every_steps": 100000, "sinks": []},
        "seed": seed,
    }


@dataclass
class Book:
    """All runs so far, one record each, in a file."""

    records: list[dict[str, Any]] = field(default_factory=lambda: json.loads(FILE.read_text()) if FILE.exists() else [])
    tasks: dict[str, Task] = field(default_factory=dict)

    def run(self, job: str, row: str, settings: Settings, seed: int) -> dict[str, Any]:
        """The record of a run, which is made unless it is there. The test accuracy stands in those of fresh seeds alone."""
        key = {"task": job, "row": row, "settings": settings, "seed": seed}
        for record in self.records:
            if {name: record[name] for name in key} == key:
                return record
        began = time.monotonic()
        record = {**key, **self._trained(job, recipe(JOBS[job], ROWS[row], settings, seed))}
        if seed == TUNING_SEED:
            record.pop("test", None)
        self.records.append(record)
        lines = ",\n".join(json.dumps(each) for each in self.records)
        partial = FILE.with_suffix(".partial")
        partial.write_text(f"[\n{lines}\n]\n")
        os.replace(partial, FILE)
        print(f"{time.monotonic() - began:5.1f} s  {record}", file=sys.stderr, flush=True)
        return record

    def _trained(self, job: str, made: dict[str, Any]) -> dict[str, Any]:
        task = self.tasks.setdefault(job, JOBS[job].make())
        with tempfile.TemporaryDirectory() as directory:
            try:
                done = disttrain.train(made, task=task, quiet=True, run_dir=directory)
            except DivergedError:
                return {"validation": None, "test": None, "updates": None}
        if done.step != made["optimizer"].get("last", done.step):
            raise RuntimeError(f"{done.step} updates, and the optimizer was told another number: {made['optimizer']}")
        found = {"validation": done.metrics["validation_accuracy"], "test": done.metrics["accuracy"]}
        return {**{name: round(100 * value, 3) for name, value in found.items()}, "updates": done.step}

    def tried(self, job: str, row: str) -> list[tuple[float, Settings]]:
        """Validation accuracies and their settings, the best first."""
        runs = [self.run(job, row, each, TUNING_SEED) for each in trials(ROWS[row])]
        return sorted(((score(run, "validation"), run["settings"]) for run in runs), key=lambda one: -one[0])

    def chosen(self, job: str, row: str) -> Settings:
        """The best settings on validation, or what the rule says."""
        if (power := ROWS[row].rule) is None:
            return self.tried(job, row)[0][1]
        small, _, large = JOBS[job].batches
        settings = self.chosen(job, "small")
        return {**settings, "lr": float(f"{settings['lr'] * (large / small) ** power:.4g}")}


def score(run: dict[str, Any], of: str) -> float:
    """In percent; a run that diverged is as good as guessing one of ten classes."""
    return 10.0 if run[of] is None else float(run[of])


def interval(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """Mean and 95 % interval, by Student's t, of differences paired by seed."""
    from scipy.stats import t  # here, because only the tables need it

    differences = [a - b for a, b in zip(ours, theirs, strict=True)]
    half = float(t.ppf(0.975, len(differences) - 1)) * statistics.stdev(differences) / len(differences) ** 0.5
    return f"{statistics.mean(differences):+.2f} ± {half:.2f}"


def results(book: Book, job: str, seeds: Sequence[int]) -> str:
    """Fresh seeds, as Markdown."""
    fresh = {row: [book.run(job, row, book.chosen(job, row), seed) for seed in seeds] for row in ROWS}
    test = {row: [score(run, "test") for run in runs] for row, runs in fresh.items()}
    lines = [
        "| row | batch | updates | validation | test | against small batch | against SGD |",
        "|---|---|---|---|---|---|---|",
    ]
    for row, runs in fresh.items():
        small, start, large = JOBS[job].batches
        batch = f"{start} to {large}" if ROWS[row].law else str(small if ROWS[row].small else large)
        updates = next((f"{run['updates']:,}" for run in runs if run["updates"]), "diverged")
        means = [statistics.mean(score(run, of) for run in runs) for of in ("validation", "test")]
        against = ["" if row == other else interval(test[row], test[other]) for other in ("small", "sgd")]
        lines.append(
            f"| {' | '.join([ROWS[row].what, batch, updates, *(f'{mean:.2f} %' for mean in means), *against])} |"
        )
    lines += ["", "| pair | difference in test accuracy |", "|---|---|"]
    lines += [f"| {ROWS[a].what} minus {ROWS[b].what} | {interval(test[a], test[b])} |" for a, b in PAIRS]
    return "\n".join(lines)


def tuning(book: Book, job: str) -> str:
    """What was tried and chosen, as Markdown."""
    lines = [
        "| row | rates tried | chosen rate | warmup | third setting | best | third | median | worst |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row, asked in ROWS.items():
        if asked.rule is not None:
            continue
        tried = book.tried(job, row)
        settings, accuracies = tried[0][1], [accuracy for accuracy, _ in tried]
        key, low, high = asked.third
        shown = [
            asked.what,
            f"{asked.rate[0]:g} to {asked.rate[1]:g}",
            f"{settings['lr']:g}",
            f"{settings['warmup']:.0%}",
            f"{key} {settings[key]:g} ({low:g} to {high:g})",
            *(f"{each:.2f}" for each in (accuracies[0], accuracies[2], statistics.median(accuracies), accuracies[-1])),
        ]
        lines.append(f"| {' | '.join(shown)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", nargs="+", choices=list(JOBS), default=list(JOBS))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(1, 9)))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    book = Book()
    for row in ROWS:
        for job in arguments.tasks:
            book.chosen(job, row)
    for seed in arguments.seeds:
        for row in ROWS:
            for job in arguments.tasks:
                book.run(job, row, book.chosen(job, row), seed)
    for job in arguments.tasks:
        print(f"## {job}\n\n{results(book, job, arguments.seeds)}\n\n{tuning(book, job)}\n")


if __name__ == "__main__":
    main()
