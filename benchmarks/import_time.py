"""What ``import disttrain`` and its parts cost beyond torch's own import; fresh interpreters, taking turns.

python benchmarks/import_time.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys

CASES = {
    "disttrain": "import disttrain",
    "disttrain, init and data named": "import disttrain; disttrain.init; disttrain.data.loader",
    "disttrain.optim": "import disttrain.optim",
    "disttrain.schedules": "import disttrain.schedules",
    "disttrain.nn": "import disttrain.nn",
    "disttrain.grads": "import disttrain.grads",
}
ROUNDS = 5


def seconds(statement: str) -> float:
    """Time of ``statement`` in a fresh interpreter that has imported torch."""
    code = f"import torch, time; t = time.perf_counter(); {statement}; print(time.perf_counter() - t)"
    return float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)


def main() -> None:
    found: dict[str, list[float]] = {name: [] for name in CASES}
    for _ in range(ROUNDS):
        for name, statement in CASES.items():
            found[name].append(seconds(statement))
    for name, values in found.items():
        print(
            f"{name:32} {1e3 * statistics.median(values):7.1f} ms beyond torch (bound 200; for the free-standing packages 100)"
        )


if __name__ == "__main__":
    main()
