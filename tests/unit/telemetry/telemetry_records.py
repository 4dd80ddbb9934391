"""Records as a run writes them."""

from __future__ import annotations

from typing import Any


def training(step: int, **more: Any) -> dict[str, Any]:
    return {
        "step": step,
        "epoch": step / 100,
        "samples": step * 512,
        "loss": 2.0 / step,
        "lr": 0.1,
        "grad_norm": 1.5,
        "samples_per_second": 12_345.6,
        **more,
    }


EVALUATION = {"split": "test", "step": 200, "epoch": 2, "samples": 102_400, "loss": 0.25408, "accuracy": 0.91234}
SUMMARY = {
    "accuracy": 0.91234,
    "seconds": 65.4,
    "samples_per_second": 24_691.2,
    "samples_per_second_per_rank": [12_345.6, 12_345.6],
    "best_step": None,
    "run_dir": "runs/[bold]2026",
}
