"""A metric that decides and is not there is named, before training where the task knows its metrics."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from disttrain.config import load_recipe
from disttrain.errors import InputError
from disttrain.tasks.base import Task
from disttrain.tasks.classification import Classification
from disttrain.tasks.cross_entropy import rates
from disttrain.tasks.make import make_task
from disttrain.tasks.text import Text

STOPPING = "early_stopping={{patience: 2, metric: {}}}"


def test_a_misspelt_metric_is_found_before_training() -> None:
    with pytest.raises(InputError) as caught:
        make_task(load_recipe(None, [STOPPING.format("acuracy")]))
    assert str(caught.value) == (
        "early_stopping.metric is 'acuracy'; task digits has loss, accuracy; did you mean accuracy?"
    )
    for metric in ("accuracy", "loss"):
        assert make_task(load_recipe(None, [STOPPING.format(metric)])).metric == "accuracy"
    text = make_task(load_recipe(None, ["task={name: text, root: x}", "model=null", STOPPING.format("perplexity")]))
    assert text.metric_names == ("loss", "accuracy", "perplexity")


def test_the_names_of_our_tasks_are_those_that_they_give() -> None:
    sums = {"loss": 3.0, "correct": 1.0, "items": 2.0}
    assert tuple(rates(sums)) == Classification.metric_names
    assert tuple(Text("x").summarise(sums)) == Text.metric_names


class Undeclared(Classification):
    """A task of the user's that forgot to say which metric decides."""

    metric_names = ()
    num_classes = 2
    load = None  # type: ignore[assignment]


class OtherMetrics(Classification):
    """Gives other metrics than the class it inherits from, and does not declare them."""

    metric = "f1"

    def summarise(self, totals: Mapping[str, float]) -> dict[str, float]:
        return {"loss": 1.0, "f1": 0.5}


def test_names_are_inherited_only_together_with_what_gives_them() -> None:
    assert OtherMetrics.metric_names == ()
    assert Undeclared.metric_names == ()
    assert type("Same", (Classification,), {}).metric_names == Classification.metric_names


def undeclared() -> Task:
    Undeclared.__abstractmethods__ = frozenset()
    return Undeclared()


def test_what_an_evaluation_lacks_is_said_of_the_task_or_of_early_stopping() -> None:
    task = undeclared()
    assert task.judged({"loss": 1.0, "accuracy": 0.5}, "accuracy") == 0.5
    with pytest.raises(InputError) as caught:
        task.judged({"loss": 1.0, "rmse": 0.5}, "accuracy")
    assert str(caught.value) == (
        "task Undeclared: its metric, which decides which checkpoint is the best, is 'accuracy', but summarise() gives "
        "loss, rmse: set the attribute metric to one of them"
    )
    assert caught.value.everywhere
    with pytest.raises(InputError) as caught:
        task.judged({"loss": 1.0, "rmse": 0.5}, "rsme")
    assert str(caught.value) == "early_stopping.metric is 'rsme'; task Undeclared has loss, rmse; did you mean rmse?"


def test_a_task_whose_metric_is_none_of_its_own_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("disttrain.tasks.digits.Digits.metric", "f1", raising=False)
    with pytest.raises(
        InputError, match="task digits: metric is 'f1', which is none of its metric_names loss, accuracy"
    ):
        make_task(load_recipe(None))
