"""One recipe at many batches: ``lr_scaling: carry`` against the square-root, the linear and no rule, on tinyshakespeare.

    OMP_NUM_THREADS=1 DISTTRAIN_DATA=DIR python benchmarks/carry.py [tune | check | critical | final | table]

A character model (2 layers, width 32, 32 characters) is trained for one epoch at every batch. ``tune`` chooses rate, betas
and weight decay at batch 64 by the validation loss of seed 100, one after the other. On that same seed, ``check`` takes carry
apart and ``critical`` measures the critical batch. ``final`` takes what ``tune`` chose to the other batches, on fresh seeds.
The test set decides nothing and its figures are not kept. What ``benchmarks/carry.json`` has already is not run again, so it
may be killed at any time. ``table`` prints the tables of ``benchmarks/carry.md``.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
JSON = HERE / "carry.json"
REFERENCE, TUNING_SEED, SEEDS = 64, 100, (1, 2, 3)
BATCHES = (8, 16, 32, 64, 128, 256, 1024)
RATES, BETAS, DECAYS = (0.004, 0.008, 0.016), ((0.9, 0.99), (0.9, 0.999), (0.9, 0.95), (0.8, 0.99)), (0.1, 1.0)
NO_MEMORY = {"momentum": False, "second_moment": False}
RULES = ("carry", "sqrt", "linear", "none")


def validation_loss(batch: int, seed: int, optimizer: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """One run; its validation loss, in nats a character."""
    import disttrain

    recipe = {
        "task": {
            "name": "text",
            "root": str(Path(os.environ["DISTTRAIN_DATA"]) / "tinyshakespeare" / "input.txt"),
            "sequence_length": 32,
            "vocab_size": 128,
        },
        "model": {"name": "transformer", "layers": 2, "heads": 4, "width": 32, "init": "xavier"},
        "batch": {"global": batch, "per_rank_max": 256},
        "epochs": 1,
        "data": {"validation": {"fraction": 0.1}},
        "optimizer": {"name": "adamw", **optimizer},
        "schedule": {"warmup": {"kind": "linear", "epochs": 0.1}, "decay": {"kind": "cosine"}},
        "evaluate": {"epochs": 1000, "batch": 512, "train": False},
        "checkpoint": {"best": False, "keep": 1},
        "log": {"every_steps": 1_000_000, "sinks": []},
        "seed": seed,
        **more,
    }
    began = time.process_time()
    with tempfile.TemporaryDirectory() as directory:
        result = disttrain.train(recipe, run_dir=Path(directory) / "run", quiet=True)
    seconds = round(time.process_time() - began, 1)
    return {"validation_loss": result.metrics["validation_loss"], "updates": result.step, "cpu_seconds": seconds}


def run(what: str, batch: int, seed: int, optimizer: dict[str, Any], **more: Any) -> float:
    """The same, once: what was run before is read."""
    found = json.loads(JSON.read_text()) if JSON.exists() else []
    key = {"what": what, "batch": batch, "seed": seed, "optimizer": optimizer, **more}
    key = json.loads(json.dumps(key))
    for line in found:
        if all(line.get(name) == value for name, value in key.items()):
            return float(line["validation_loss"])
    line = {**key, **validation_loss(batch, seed, optimizer, more)}
    lines = ",\n".join(json.dumps(one) for one in [*found, line])
    JSON.write_text(f"[\n{lines}\n]\n")
    print(
        f"{what:12} batch {batch:5} seed {seed:4} {line['validation_loss']:.4f} {optimizer}",
        file=sys.stderr,
        flush=True,
    )
    return float(line["validation_loss"])


def tune() -> dict[str, Any]:
    """The optimizer at the reference batch: the rate, then betas, then weight decay, then the rate again."""
    best: dict[str, Any] = {"lr": RATES[1], "betas": [0.9, 0.99], "weight_decay": 0.1}

    def choose(name: str, values: Sequence[Any]) -> None:
        tried = [{**best, name: value} for value in values]
        best.update(min(tried, key=lambda one: run("tune", REFERENCE, TUNING_SEED, one)))

    choose("lr", RATES)
    choose("betas", [list(pair) for pair in BETAS])
    choose("weight_decay", DECAYS)
    choose("lr", [best["lr"], best["lr"] / 2, best["lr"] * 2])
    return best


def under(rule: str, tuned: dict[str, Any], **carry: Any) -> dict[str, Any]:
    """The optimizer of ``tuned`` with a rule, and parts of carry."""
    section = {**tuned, "reference_batch": REFERENCE, "lr_scaling": rule}
    return {**section, "carry": carry} if carry else section


def check(tuned: dict[str, Any]) -> None:
    """On the tuning seed: the two rules in question, and carry without some of its parts."""
    apart: list[dict[str, Any]] = [{}, NO_MEMORY, {"momentum": False}, {"weight_decay": False}]
    for batch, parts in ((16, apart), (256, apart[:2])):
        run("check", batch, TUNING_SEED, under("sqrt", tuned))
        for carry in parts:
            run("check", batch, TUNING_SEED, under("carry", tuned, **carry))


def critical(tuned: dict[str, Any]) -> None:
    """On the tuning seed: twice the samples, to find the batch that needs them to come as far as the smallest."""
    for batch, rule in ((64, "carry"), (128, "sqrt"), (128, "carry")):
        run("critical", batch, TUNING_SEED, under(rule, tuned), epochs=2)


def final(tuned: dict[str, Any]) -> None:
    """Each rule at each batch; at the reference batch all are one."""
    for rules, batches in ((RULES[:2], (8, 16, 32, 128, 256, 1024)), (RULES[2:], (16,))):
        for seed in SEEDS:
            run("final", REFERENCE, seed, under("carry", tuned))
            for batch, rule in itertools.product(batches, rules):
                run("final", batch, seed, under(rule, tuned))


def losses(tuned: dict[str, Any]) -> dict[tuple[str, int], list[float]]:
    """Of every rule and batch that all seeds have been through: the validation losses, in the order of the seeds."""
    found: dict[tuple[str, int], list[float]] = {}
    lines = [line for line in json.loads(JSON.read_text()) if line["what"] == "final"]
    for rule, batch in itertools.product(RULES, BATCHES):
        scaling = "carry" if batch == REFERENCE else rule
        own = {
            line["seed"]: line["validation_loss"]
            for line in lines
            if line["batch"] == batch and line["optimizer"] == under(scaling, tuned)
        }
        if set(SEEDS) <= own.keys():
            found[rule, batch] = [own[seed] for seed in SEEDS]
    return found


def ratio(found: dict[tuple[str, int], list[float]], batches: Sequence[int], spread: Any) -> tuple[float, float, float]:
    """Spread over batches under carry over that under the square root, each the mean of the seeds; 2.5 and 97.5 % of all
    resamples of the seeds, which are the same ones for both rules."""
    own = {
        rule: [spread([found[rule, batch][i] for batch in batches]) for i in range(len(SEEDS))] for rule in RULES[:2]
    }

    def of(seeds: Sequence[int]) -> float:
        return sum(own["carry"][i] for i in seeds) / sum(own["sqrt"][i] for i in seeds)

    each = range(len(SEEDS))
    resampled = sorted(of(seeds) for seeds in itertools.product(each, repeat=len(SEEDS)))
    cut = round(0.025 * (len(resampled) - 1))
    return of(each), resampled[cut], resampled[-1 - cut]


def table(tuned: dict[str, Any], within: Sequence[int]) -> str:
    """The results as Markdown."""
    found = losses(tuned)
    lines = [f"| rule | {' | '.join(map(str, BATCHES))} |", "|---" * (len(BATCHES) + 1) + "|"]
    for rule in RULES:
        cells = (found.get((rule, batch)) for batch in BATCHES)
        shown = (
            "" if cell is None else f"{statistics.mean(cell):.3f} ± {(max(cell) - min(cell)) / 2:.3f}" for cell in cells
        )
        lines.append(f"| `{rule}` | {' | '.join(shown)} |")
    lines.append("")
    for what, spread in (
        ("largest less smallest", lambda x: max(x) - min(x)),
        ("standard deviation", statistics.stdev),
    ):
        value, low, high = ratio(found, within, spread)
        batches = ", ".join(map(str, within))
        lines.append(
            f"Spread over batches {batches} ({what}), carry over square root: {value:.2f} ({low:.2f} to {high:.2f})."
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stage", choices=["tune", "check", "critical", "final", "table"])
    parser.add_argument("--within", type=int, nargs="+", default=[8, 16, 32, 64], help="batches up to the critical one")
    arguments = parser.parse_args()
    tuned = tune()
    stages = {"tune": lambda tuned: None, "check": check, "critical": critical, "final": final}
    if arguments.stage == "table":
        print(table(tuned, arguments.within))
    else:
        stages[arguments.stage](tuned)
        print(tuned)


if __name__ == "__main__":
    main()
