"""Records to MLflow, through its own package; without a tracking server to an SQLite file in the run directory."""

from __future__ import annotations

import json
import os
import posixpath
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from disttrain.config.reading.dump import by_dotted_key
from disttrain.errors import InputError
from disttrain.telemetry.outside import kept_id
from disttrain.telemetry.scalars import numbers, scalars

_STATUS = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}
_MOST = 100  # parameters in a request
_LONGEST = 6000  # characters of a parameter


class MLflowSink:
    """An MLflow run: every number of every line at its step, the recipe as parameters, the summary at the end as metrics
    ``summary/NAME`` and tags.

    What MLflow does not take in a name (``top@5``) becomes an underscore.

    A resumed run goes on under the same id; a setting that has changed meanwhile becomes a tag ``resumed.KEY``, because
    MLflow keeps parameters as they were.

    Args:
        run_dir: ``log/mlflow.id`` in it holds the run's id.
        recipe: becomes the parameters.
        tracking_uri: where to; None: the variable ``MLFLOW_TRACKING_URI``, or else ``mlflow.db`` in the run directory.
        experiment: its name; None: the recipe's name.
        run_name: None: the run directory's name.

    Raises:
        InputError: the package is not installed.
    """

    def __init__(
        self,
        run_dir: Path,
        recipe: Mapping[str, Any],
        tracking_uri: str | None = None,
        experiment: str | None = None,
        run_name: str | None = None,
    ) -> None:
        try:
            from mlflow.entities import Metric, Param
            from mlflow.tracking import MlflowClient
        except ImportError as error:
            raise InputError(f'needs the package mlflow ({error}): pip install "disttrain[mlflow]"') from None
        home = run_dir.resolve()
        uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
        self._metric = Metric
        self._client = MlflowClient(tracking_uri=uri or f"sqlite:///{home / 'mlflow.db'}")
        name = experiment or recipe.get("name") or "disttrain"
        found = self._client.get_experiment_by_name(name)
        artifacts = None if uri else (home / "mlflow-artifacts").as_uri()
        number = found.experiment_id if found else self._client.create_experiment(name, artifact_location=artifacts)
        self._id = self._run_of(number, run_name or run_dir.name, run_dir / "log" / "mlflow.id")
        self._status = "FAILED"
        self._client.update_run(self._id, status="RUNNING")
        had = self._client.get_run(self._id).data.params
        given = {valid_name(key): _text(value) for key, value in by_dotted_key(recipe).items()}
        new = [Param(key, value) for key, value in given.items() if key not in had]
        for first in range(0, len(new), _MOST):
            self._client.log_batch(self._id, params=new[first : first + _MOST])
        for key, value in given.items():
            if had.get(key, value) != value:
                self._client.set_tag(self._id, f"resumed.{key}", value)

    def log(self, record: Mapping[str, object]) -> None:
        values = scalars(record)
        if record.get("event") == "end":
            self._status = _STATUS[str(record["state"])]
            values = {f"summary/{name}": value for name, value in numbers(record) if name != "step"}
            for name, value in record.items():
                if isinstance(value, str) and name != "event":
                    self._client.set_tag(self._id, valid_name(f"summary.{name}"), value)
        now, step = int(time.time() * 1000), record.get("step")
        metrics = [
            self._metric(valid_name(name), float(value), now, step if isinstance(step, int) else 0)
            for name, value in values.items()
        ]
        for first in range(0, len(metrics), _MOST):
            self._client.log_batch(self._id, metrics=metrics[first : first + _MOST])

    def close(self) -> None:
        self._client.set_terminated(self._id, self._status)

    def _run_of(self, experiment: str, name: str, file: Path) -> str:
        """The run that was begun before, if this store has it, or a new one."""
        from mlflow.exceptions import MlflowException

        if file.exists():
            try:
                return str(self._client.get_run(file.read_text(encoding="utf-8").strip()).info.run_id)
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                file.unlink()
        return kept_id(file, self._client.create_run(experiment, run_name=name).info.run_id)


def valid_name(name: str) -> str:
    """As MLflow takes it: of a metric of the user's, say, it would refuse the whole line."""
    return posixpath.normpath(re.sub(r"[^\w/.\- :]", "_", name))[:250]


def _text(value: Any) -> str:
    return (value if isinstance(value, str) else json.dumps(value))[:_LONGEST]
