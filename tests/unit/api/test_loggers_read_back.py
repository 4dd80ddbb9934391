"""What W&B (offline) and MLflow wrote, read back with their own readers: the numbers of metrics.jsonl, to the last bit."""

from __future__ import annotations

import json
import math
import struct
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import disttrain
from disttrain.telemetry.scalars import scalars

Numbers = set[tuple[str, int, float]]
RECIPE: dict[str, Any] = {
    "name": "logged",
    "task": {"name": "digits"},
    "model": {"name": "mlp", "hidden": [8]},
    "batch": {"global": 128},
    "updates": 5,
    "optimizer": {"name": "sgd", "lr": 0.1},
    "evaluate": {"updates": 5},
}


@pytest.fixture(autouse=True)
def _nobody_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("WANDB_MODE", "offline"), ("DO_NOT_TRACK", "1"), ("MLFLOW_DISABLE_TELEMETRY", "1")):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def numbers(run_dir: Path) -> Numbers:
    """Of every line of metrics.jsonl."""
    records = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return {(name, record["step"], value) for record in records for name, value in scalars(record).items()}


def train_in_two_starts(tmp_path: Path, sink: object) -> tuple[disttrain.Result, dict[str, Any]]:
    recipe = {**RECIPE, "log": {"every_steps": 1, "sinks": [sink]}}
    disttrain.train({**recipe, "updates": 3}, run_dir=tmp_path / "run", quiet=True)
    return disttrain.train(recipe, run_dir=tmp_path / "run", resume=True, quiet=True), recipe


def wandb_records(path: Path) -> Iterator[Any]:
    """A .wandb file: LevelDB's log format after a header of 7 bytes; each entry is one of W&B's own messages."""
    from wandb.proto import wandb_internal_pb2

    data, at, parts = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:  # no room for a header: the rest of the block is padding
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a whole entry, or the last piece of one
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            parts = b""
            yield record


def test_wandb(tmp_path: Path) -> None:
    wandb = pytest.importorskip("wandb", reason="needs W&B, an optional dependency")
    result, recipe = train_in_two_starts(tmp_path, {"name": "wandb", "project": "mine"})
    wandb.teardown()  # its own process serves all runs of this one
    files = sorted((tmp_path / "run/wandb").glob("offline-run-*/*.wandb"))
    assert len(files) == 2
    found: Numbers = set()
    ids, config, summary, codes = set(), {}, {}, []
    for file in files:
        for record in wandb_records(file):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                ids.add((record.run.run_id, record.run.project))
                config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
            elif kind == "summary":
                summary |= {".".join(item.nested_key) or item.key: item.value_json for item in record.summary.update}
            elif kind == "exit":
                codes.append(record.exit.exit_code)
            elif kind == "history":
                row = {
                    ".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item
                }
                step = row.pop("step")
                found |= {(name, step, value) for name, value in row.items() if not name.startswith("_")}
    assert numbers(result.run_dir) <= found
    assert {name for name, _, _ in found} == {name for name, _, _ in numbers(result.run_dir)}
    assert [project for _, project in ids] == ["mine"]
    assert config["batch"]["global"] == recipe["batch"]["global"]
    assert json.loads(summary["summary/accuracy"]) == result.metrics["accuracy"]
    assert codes == [0, 0]


@pytest.mark.slow
def test_mlflow(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mlflow = pytest.importorskip("mlflow", reason="needs MLflow, an optional dependency")
        result, _ = train_in_two_starts(tmp_path, "mlflow")
        client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'run/mlflow.db'}")
        experiment = client.get_experiment_by_name("logged")
        (run,) = client.search_runs([experiment.experiment_id])
        found: Numbers = set()
        for name in run.data.metrics:
            found |= {(name, m.step, m.value) for m in client.get_metric_history(run.info.run_id, name)}
    told = {entry for entry in found if not entry[0].startswith("summary/")}
    assert numbers(result.run_dir) <= told
    assert {name for name, _, _ in told} == {name for name, _, _ in numbers(result.run_dir)}
    assert all(math.isfinite(value) for _, _, value in told)
    assert run.data.params["batch.global"] == "128"
    assert (run.data.params["updates"], run.data.tags["resumed.updates"]) == ("3", "5")
    assert run.data.metrics["summary/accuracy"] == result.metrics["accuracy"]
    assert (run.info.status, run.data.tags["summary.state"]) == ("FINISHED", "finished")


@pytest.mark.parametrize("name", ["test/top@5", "train/losses/a b (%)", "test//x", "loss.weights.é/ü", "x" * 300])
def test_mlflow_takes_every_name(name: str) -> None:
    """By its own rules; it would refuse all metrics of a line for one of them."""
    pytest.importorskip("mlflow", reason="needs MLflow, an optional dependency")
    from mlflow.utils.validation import _validate_metric_name, _validate_param_name, _validate_tag_name

    from disttrain.telemetry.mlflow import valid_name

    for validate in (_validate_metric_name, _validate_param_name, _validate_tag_name):
        validate(valid_name(name))
    assert valid_name("test/loss") == "test/loss"
