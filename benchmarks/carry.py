"""One recipe at many batches: ``lr_scaling: carry`` against the square-root, the linear and no rule, on tinyshakespeare.

    OMP_NUM_THREADS=1 DISTTRAIN_DATA=DIR python benchmarks/carry.py [tune | check | final | table] ...

A character model (2 layers, width 32, 32 characters) is trained for one epoch at every batch. ``tune`` chooses rate, betas
and weight decay at batch 64 by the validation loss of seed 100, one after the other; ``check`` looks at other batches on that
same seed; ``final`` takes what ``tune`` chose to the other batches on fresh seeds. The test set decides nothing and its figures
are not kept. What ``benchmarks/carry.json`` has already is not run again, so it may be killed at any time. ``table`` writes
``benchmarks/carry.md``.
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
JSON, PAGE = HERE / "carry.json", HERE / "carry.md"
REFERENCE, TUNING_SEED, SEEDS = 64, 100, (1, 2, 3)
BATCHES = (16, 32, 64, 128, 256, 1024)
RATES, BETAS, DECAYS = (0.004, 0.008, 0.016), ((0.9, 0.99), (0.9, 0.999), (0.9, 0.95), (0.8, 0.99)), (0.1, 1.0)
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


def by_rule(rule: str, tuned: dict[str, Any], carry: dict[str, Any] | None = None) -> dict[str, Any]:
    section = {**tuned, "reference_batch": REFERENCE, "lr_scaling": rule}
    return {**section, "carry": carry} if rule == "carry" and carry else section


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stage", choices=["tune", "check", "final", "table"])
    stage = parser.parse_args().stage
    tuned = tune()
    print(tuned)


if __name__ == "__main__":
    main()
