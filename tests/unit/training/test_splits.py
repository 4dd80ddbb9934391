"""Train, validation and test set: what is evaluated when, and what decides."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from disttrain.config import load_recipe
from disttrain.data.selection import Selection, held_out
from disttrain.engine.stop import StopRequest
from disttrain.errors import InputError
from disttrain.inference.evaluate import evaluate
from disttrain.plan.explain import explain
from disttrain.tasks.make import stated_sizes
from disttrain.telemetry.summary import summary_rows
from disttrain.telemetry.tensorboard import TensorBoardSink
from disttrain.training import loop
from disttrain.training.build import make_loader
from disttrain.training.state import Run

MakeRun = Callable[..., Run]
SHORT = ["batch.global=200", "updates=8", "epochs=null", "evaluate.updates=2", "model.name=mlp", "model.hidden=[16]"]
OWN = "task.name=tests.unit.training.tasks_on_digits:"


class Lines(list[dict[str, Any]]):
    """A sink that keeps."""

    def log(self, record: Any) -> None:
        self.append(dict(record))

    def close(self) -> None:
        pass


def trained(run: Run, run_dir: Path) -> tuple[dict[str, float], Lines]:
    sink = Lines()
    return loop.train(run, run_dir, sink, StopRequest()), sink


def splits(lines: Lines) -> list[tuple[int, str]]:
    return [(line["step"], line["split"]) for line in lines if "split" in line]


def by_hand(run: Run, ids: Any) -> dict[str, float]:
    images, labels = (t[torch.as_tensor(ids)] for t in run.task.load()[0].tensors)  # type: ignore[attr-defined]
    run.model.eval()
    with torch.no_grad():
        logits = run.model(images.double())
    run.model.train()
    return {
        "loss": float(F.cross_entropy(logits, labels)),
        "accuracy": float((logits.argmax(1) == labels).double().mean()),
    }


def test_the_train_set_is_evaluated_on_a_fixed_part_without_mixing_and_dropout(make_run: MakeRun) -> None:
    run = make_run(*SHORT, "precision=fp64", "model.dropout=0.5", "loss.mixup=0.4", "evaluate.batch=37", "seed=5")
    ids = Selection(1437, 0, 360).ids(np.arange(360))
    assert len(set(ids.tolist())) == 360
    found = evaluate(run, "train")
    assert found == pytest.approx(by_hand(run, ids), rel=1e-12)
    assert evaluate(run, "train") == found
    assert run.model.training


def test_a_validation_set_is_the_other_end_and_is_not_trained_on(make_run: MakeRun) -> None:
    run = make_run(*SHORT, "precision=fp64", "data.validation.fraction=0.2", "loss.mixup=0.4")
    train, validation = held_out(1437, 0.2)
    assert (run.plan.train_samples, run.plan.validation_samples, run.plan.test_samples) == (1150, 287, 360)
    assert evaluate(run, "validation") == pytest.approx(by_hand(run, validation.ids(np.arange(287))), rel=1e-12)
    assert evaluate(run, "train") == pytest.approx(by_hand(run, train.ids(np.arange(360))), rel=1e-12)
    visited: list[int] = []
    for batch in make_loader(run):
        visited += batch.global_ids.tolist()
        if batch.ends_epoch:
            break
    assert sorted(visited) == sorted(train.ids(np.arange(1150)).tolist())


@pytest.mark.parametrize("order", ["partition", "replacement"])
def test_other_orders_keep_to_what_is_trained_on(order: str, make_run: MakeRun) -> None:
    run = make_run(*SHORT, "data.validation.fraction=0.2", f"data.order={order}")
    allowed = set(held_out(1437, 0.2)[0].ids(np.arange(1150)).tolist())
    for batch in make_loader(run):
        assert set(batch.global_ids.tolist()) <= allowed
        if batch.epoch == 2:
            break


def test_without_validation_the_test_set_is_read_every_time(make_run: MakeRun, tmp_path: Path) -> None:
    metrics, lines = trained(make_run(*SHORT), tmp_path)
    assert splits(lines) == [(step, split) for step in (2, 4, 6, 8) for split in ("train", "test")]
    assert set(metrics) == {"loss", "accuracy", "train_loss", "train_accuracy"}
    assert metrics["accuracy"] == lines[-1]["accuracy"]
    _, lines = trained(make_run(*SHORT, "evaluate.train=false"), tmp_path)
    assert splits(lines) == [(step, "test") for step in (2, 4, 6, 8)]


def test_with_validation_the_test_set_is_read_once_at_the_end(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(*SHORT, "data.validation.fraction=0.1")
    metrics, lines = trained(run, tmp_path)
    regular = [(step, split) for step in (2, 4, 6, 8) for split in ("train", "validation")]
    assert splits(lines) == [*regular, (8, "test")]
    validated = [line["accuracy"] for line in lines if line.get("split") == "validation"]
    assert run.progress.best == max(validated)
    assert metrics["validation_accuracy"] == validated[-1]
    assert metrics["accuracy"] == lines[-1]["accuracy"]


def test_early_stopping_reads_the_validation_set_and_then_the_test_set(make_run: MakeRun, tmp_path: Path) -> None:
    words = ["early_stopping.patience=2", "early_stopping.metric=accuracy", "early_stopping.min_delta=2.0"]
    run = make_run(*SHORT, "data.validation.fraction=0.1", "updates=100", *words)
    _, lines = trained(run, tmp_path)
    assert splits(lines)[-3:] == [(6, "train"), (6, "validation"), (6, "test")]
    assert [split for _, split in splits(lines)].count("test") == 1


def test_a_task_may_bring_a_validation_set(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(*SHORT, OWN + "WithValidation", "precision=fp64")
    assert (run.plan.train_samples, run.plan.validation_samples) == (1437, 100)
    images, labels = (t[:100] for t in run.task.test_dataset().tensors)  # type: ignore[union-attr]
    with torch.no_grad():
        expected = float(F.cross_entropy(run.model(images.double()), labels))
    assert evaluate(run, "validation")["loss"] == pytest.approx(expected, rel=1e-12)
    _, lines = trained(run, tmp_path)
    assert splits(lines)[-3:] == [(8, "train"), (8, "validation"), (8, "test")]
    with pytest.raises(InputError, match=r"a validation set of its own \(100 samples\): leave out data.validation"):
        make_run(*SHORT, OWN + "WithValidation", "data.validation.fraction=0.1")


def test_sizes_that_are_not_those_of_the_sets_are_refused_at_set_up(make_run: MakeRun) -> None:
    with pytest.raises(InputError, match=r"the train set has 1,400 samples, but train_dataset\(\) has 1,437"):
        make_run(*SHORT, OWN + "Miscounted")


def test_a_metric_that_the_task_lacks_is_laid_at_its_door(make_run: MakeRun, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"Unnamed: metric is 'exactness', which is none of its metric_names loss, accuracy"
    ):
        trained(make_run(*SHORT, OWN + "Unnamed"), tmp_path)
    with pytest.raises(InputError, match=r"early_stopping.metric is 'acuracy'.*did you mean accuracy"):
        trained(make_run(*SHORT, "early_stopping.metric=acuracy", "early_stopping.patience=3"), tmp_path)


def test_a_fraction_that_leaves_nothing_is_refused(make_run: MakeRun) -> None:
    with pytest.raises(InputError, match="leaves 1,437 for training and 0 for validation"):
        make_run(*SHORT, "data.validation.fraction=0.0001")


def test_stated_sizes_are_those_of_the_whole_sets() -> None:
    words = ["data.validation.fraction=0.1", "data.train_samples=60000", "data.test_samples=10000"]
    sizes = stated_sizes(load_recipe(None, ["task.name=fashion_mnist", "task.root=/nowhere", *words]))
    assert (sizes.train, sizes.validation, sizes.test) == (54_000, 6_000, 10_000)
    with pytest.raises(InputError, match=r"data\.train_samples is 1,293, but the set of task digits has 1,437"):
        stated_sizes(load_recipe(None, ["data.validation.fraction=0.1", "data.train_samples=1293"]))


def test_the_plan_names_the_validation_set(make_run: MakeRun) -> None:
    run = make_run(*SHORT, "data.validation.fraction=0.2")
    shown = {what: (value, why) for what, value, why in explain(run.recipe, run.plan)}
    assert shown["train set"][0] == "1,150 samples"
    assert shown["validation set"] == (
        "287 samples",
        "0.2 of the train set, never trained on; decides which checkpoint is the best",
    )
    assert shown["test set"][1].endswith("read once, at the end")


def test_the_summary_says_which_set_a_number_is_of() -> None:
    summary = {"train_rmse": 1.0, "validation_accuracy": 0.5, "rmse": 2.0, "accuracy": 0.25, "loss": 3.0}
    assert summary_rows(summary) == [
        ("train rmse", "1.0000"),
        ("validation accuracy", "50.00 %"),
        ("test rmse", "2.0000"),
        ("test accuracy", "25.00 %"),
        ("test loss", "3.0000"),
    ]


def test_the_losses_of_updates_and_of_the_train_set_stay_apart_in_tensorboard() -> None:
    found: list[str] = []

    class Writer:
        def add_scalar(self, tag: str, value: float, step: int) -> None:
            assert math.isfinite(value)
            found.append(tag)

    sink = TensorBoardSink(Writer())  # type: ignore[arg-type]
    sink.log({"step": 1, "loss": 0.5})
    for split in ("train", "validation", "test"):
        sink.log({"split": split, "step": 1, "loss": 0.5})
    assert found == ["train/loss", "train_set/loss", "validation/loss", "test/loss"]
