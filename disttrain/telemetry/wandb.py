"""Records to Weights & Biases, through its own package; its files lie in the run directory."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from disttrain.errors import InputError
from disttrain.telemetry.outside import kept_id
from disttrain.telemetry.scalars import scalars


class WandbSink:
    """A W&B run: every number of every line over the key ``step``, the recipe as config, the summary at the end.

    A resumed run goes on under the same id. The steps are a metric of their own (``define_metric``), because W&B drops a line
    whose step is smaller than one that it has seen, and a run that is resumed writes the lines after its checkpoint again.

    Args:
        run_dir: where W&B keeps its files; ``log/wandb.id`` in it holds the id.
        recipe: becomes the run's config.
        arguments: of ``wandb.init``; they take precedence.

    Raises:
        InputError: the package is not installed.
    """

    def __init__(self, run_dir: Path, recipe: Mapping[str, Any], **arguments: Any) -> None:
        try:
            import wandb
        except ImportError as error:
            raise InputError(f'needs the package wandb ({error}): pip install "disttrain[wandb]"') from None
        given = {
            "dir": str(run_dir.resolve()),
            "id": kept_id(run_dir / "log" / "wandb.id", uuid.uuid4().hex[:8]),
            "resume": "allow",
            "project": recipe.get("name") or "disttrain",
            "name": run_dir.name,
            "config": dict(recipe),
            "reinit": "create_new",
        }
        # What is printed and what the terminal shows is our affair: progress lines are not to appear twice.
        settings = {"silent": True, "console": "off", **arguments.pop("settings", {})}
        self._run = wandb.init(**{**given, **arguments}, settings=wandb.Settings(**settings))
        self._run.define_metric("*", step_metric="step")
        self._code = 1

    def log(self, record: Mapping[str, object]) -> None:
        if record.get("event") == "end":
            self._code = 0 if record["state"] == "finished" else 1
            self._run.summary.update({f"summary/{name}": value for name, value in record.items() if name != "event"})
            if record["state"] == "stopped":
                self._run.mark_preempting()  # W&B then calls the run preempted, not failed
        elif values := scalars(record):
            self._run.log({**values, "step": record["step"]})

    def close(self) -> None:
        self._run.finish(exit_code=self._code)
