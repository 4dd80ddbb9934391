"""The noise scale of the run of benchmarks/critical_batch.py, beside its branches: from the run's own lines, and at the branches'
four checkpoints over the whole train set and the validation set. Goes on where it was killed.

    DISTTRAIN_DATA=DIR python benchmarks/critical_batch_noise.py [--work DIR]

Writes benchmarks/critical_batch_noise.json; the table is printed, and stands in benchmarks/critical_batch.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from critical_batch import POINTS, RECIPE

import disttrain

RESULTS = Path(__file__).with_suffix(".json")
MEASURED = RECIPE | {"noise_scale": {"every_steps": 5, "slice": 8}, "log": {"sinks": [], "every_steps": 100}}
ENDS = ("noise_scale", "noise_scale_low", "noise_scale_high")


def lines(run_dir: Path) -> dict[int, dict[str, Any]]:
    """The training line of each update that has one."""
    read = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return {r["step"]: r for r in read if "split" not in r and "noise_scale" in r}


def at_checkpoint(run_dir: Path, step: int, part: str) -> dict[str, Any]:
    words = ["noise", str(run_dir), "--checkpoint", str(step), "--set", part, "--slice", "8", "--json"]
    done = subprocess.run([sys.executable, "-m", "disttrain", *words], check=True, capture_output=True, text=True)
    said: dict[str, Any] = json.loads(done.stdout)
    return {
        key: said[key]
        for key in ("value", "low", "high", "reason", "square_norm", "trace", "samples", "slice", "words")
    }


def shown(value: float | None, low: float | None, high: float | None) -> str:
    if value is None or high is None:
        return "none" if low is None else f"at least {low:,.0f}"
    return f"{value:,.0f} ({low or 0:,.0f} to {high:,.0f})"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", type=Path, default=Path("runs/critical_batch_noise"))
    run_dir = parser.parse_args().work / "run"
    disttrain.train(MEASURED, run_dir=run_dir, resume="auto", quiet=True)
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"recipe": MEASURED}
    for step in POINTS:
        row: dict[str, Any] = results.setdefault(str(step), {})
        line = lines(run_dir)[step]
        row["run"] = {key: line.get(key) for key in (*ENDS, "noise_scale_reason")}
        for part in ("train", "validation"):
            if part not in row:
                row[part] = at_checkpoint(run_dir, step, part)
                RESULTS.write_text(json.dumps(results, indent=1) + "\n")
        cells = [shown(*(row["run"][key] for key in ENDS))]
        cells += [shown(*(row[part][key] for key in ("value", "low", "high"))) for part in ("train", "validation")]
        print(f"| {step} | {' | '.join(cells)} |", flush=True)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
