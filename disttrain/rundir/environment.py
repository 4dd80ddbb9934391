"""What a run was started with, beside its recipe: a line of ``environment.jsonl`` for each start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from importlib import metadata
from pathlib import Path
from typing import Any

from disttrain.plan.plan import StepPlan
from disttrain.rundir.rundir import ENVIRONMENT
from disttrain.telemetry.jsonl import JsonlSink, read_records

PACKAGES = ("horovod", "safetensors", "transformers", "datasets", "timm", "torchvision", "torchao", "pillow")
"""Those that may change what a run does, where they are installed."""
Environment = dict[str, dict[str, Any]]


def note_start(
    run_dir: Path, step: int, agreed: Mapping[str, Mapping[str, Any]], plan: StepPlan, machine: Mapping[str, Any]
) -> None:
    """Add a start to the record.

    Args:
        step: that it goes on from.
        agreed: what all ranks have alike, by topic and key (recipe, code, package, dataset).
        machine: the ranks, the engine and the device.
    """
    topics = {topic: dict(keys) for topic, keys in agreed.items() if topic != "recipe"}
    installed = {name: version for name in PACKAGES if (version := _version(name)) is not None}
    topics["package"] = {**installed, **topics.get("package", {})}
    numbers = {f.name: getattr(plan, f.name) for f in fields(plan)}
    plain = {name: value for name, value in numbers.items() if isinstance(value, int | float | str | None)}
    plain |= {"peak_lr": plan.peak_lr, **{f"optimizer.{change.key}": change.after for change in plan.carried.changes}}
    sink = JsonlSink(run_dir / ENVIRONMENT)
    try:
        sink.log({"step": step, **topics, "plan": plain, "machine": dict(machine)})
    finally:
        sink.close()


def read_starts(run_dir: Path) -> list[Environment]:
    """The topics of each start, in order; none for a run of an older disttrain. A line that a kill cut off is no start.

    Raises:
        InputError: the file cannot be read.
    """
    return [
        {topic: keys for topic, keys in record.items() if isinstance(keys, dict)}
        for record in read_records(run_dir / ENVIRONMENT)
    ]


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
