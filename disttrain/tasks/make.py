"""The task of a recipe, and the sizes of its sets."""

from __future__ import annotations

from disttrain.config import Recipe
from disttrain.data.mix import MixSettings
from disttrain.errors import DataError, InputError
from disttrain.tasks.base import Sizes, Task, unknown_metric
from disttrain.tasks.build import build_task
from disttrain.tasks.classification import Classification


def make_task(recipe: Recipe) -> Task:
    """The recipe's task, its data not yet read.

    Raises:
        InputError: it cannot be made, its samples cannot be mixed, or it has no such metric to stop early by.
    """
    loss = recipe.loss
    task = build_task(recipe.task.model_dump(), seed=recipe.seed, label_smoothing=loss.label_smoothing)
    early = recipe.early_stopping
    if early is not None and task.metric_names and early.metric not in task.metric_names:
        raise unknown_metric(early.metric, recipe.task.name, task.metric_names)
    if loss.mixup or loss.cutmix:
        if not isinstance(task, Classification):
            raise InputError(
                f"loss.mixup and loss.cutmix are for image classification, and not for task {recipe.task.name}"
            )
        task.mix(MixSettings(loss.mixup, loss.cutmix), recipe.seed)
    return task


def stated_sizes(recipe: Recipe) -> Sizes:
    """The sizes of the sets; where the data is not at hand, what the recipe's ``data`` section states.

    Raises:
        DataError: the data cannot be read, and the recipe does not state both sizes; the message says how to.
        InputError: the recipe states other sizes.
    """
    task = make_task(recipe)
    train, test = recipe.data.train_samples, recipe.data.test_samples
    try:
        return checked_sizes(recipe, task)
    except DataError as error:
        if train is None or test is None:
            raise DataError(
                f"{error}. To see the plan without the data: data.train_samples=N data.test_samples=N"
            ) from error
        return Sizes(train, test)


def checked_sizes(recipe: Recipe, task: Task) -> Sizes:
    """The sizes of the sets.

    Raises:
        InputError: the recipe states other ones.
    """
    sizes = task.sizes()
    for name, real in (("train_samples", sizes.train), ("test_samples", sizes.test)):
        stated = getattr(recipe.data, name)
        if stated is not None and stated != real:
            raise InputError(f"data.{name} is {stated:,}, but the set of task {recipe.task.name} has {real:,} samples")
    return sizes
