"""The task of a recipe, and the sizes of its sets."""

from __future__ import annotations

from disttrain.config import Recipe
from disttrain.data.collate import Collate, stack
from disttrain.data.dataset import try_batch
from disttrain.data.fetching import require_stack
from disttrain.data.mix import MixSettings
from disttrain.data.selection import held_out
from disttrain.data.usable import require_usable
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
    if early is not None and early.metric and task.metric_names and early.metric not in task.metric_names:
        raise unknown_metric(early.metric, recipe.task.name, task.metric_names)
    if loss.mixup or loss.cutmix:
        if not isinstance(task, Classification):
            raise InputError(
                f"loss.mixup and loss.cutmix are for image classification, and not for task {recipe.task.name}"
            )
        task.mix(MixSettings(loss.mixup, loss.cutmix), recipe.seed, fraction_held_out(recipe))
    return task


def fraction_held_out(recipe: Recipe) -> float | None:
    """The share of the train set that validates."""
    return None if recipe.data.validation is None else recipe.data.validation.fraction


def collate_of(task: Task) -> Collate:
    """How batches are made of the task's samples: by its own ``collate()``, or stacked."""
    return stack if getattr(task.collate, "__func__", None) is Task.collate else task.collate


def stated_sizes(recipe: Recipe) -> Sizes:
    """How many samples are trained on, validate and test; where the data is not at hand, from what the recipe's ``data``
    section states.

    Raises:
        DataError: the data cannot be read, and the recipe does not state both sizes; the message says how to.
        InputError: as :func:`checked_sizes`.
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
        return _divided(recipe, Sizes(train, test))


def checked_sizes(recipe: Recipe, task: Task) -> Sizes:
    """How many samples are trained on, validate and test.

    Raises:
        InputError: the recipe states other sizes, or asks for a validation set where the task brings one or too few samples.
    """
    sizes = _said(recipe, task)
    for name, real in (("train_samples", sizes.train), ("test_samples", sizes.test)):
        stated = getattr(recipe.data, name)
        if stated is not None and stated != real:
            raise InputError(f"data.{name} is {stated:,}, but the set of task {recipe.task.name} has {real:,} samples")
    if sizes.validation and recipe.data.validation is not None:
        raise InputError(
            f"task {recipe.task.name} brings a validation set of its own ({sizes.validation:,} samples): "
            "leave out data.validation"
        )
    return _divided(recipe, sizes)


def load_sets(recipe: Recipe, task: Task) -> Sizes:
    """Read the task's sets, and return :func:`checked_sizes`.

    Raises:
        InputError: as there, a set cannot be used, its samples make no batch, or the task's ``sizes()`` are not those of its
            sets.
    """
    sets = {"train": task.train_dataset(), "test": task.test_dataset(), "validation": task.validation_dataset()}
    for name, dataset in sets.items():
        if dataset is not None or name != "validation":
            require_usable(dataset, f"task {recipe.task.name}: {name}_dataset()")
        if dataset is not None:
            if not len(dataset):
                raise InputError(f"task {recipe.task.name}: {name}_dataset() is empty")
            require_stack(dataset, collate_of(task))
            try_batch(dataset, collate_of(task))
    sizes = _said(recipe, task)
    for name, dataset in sets.items():
        said, real = getattr(sizes, name), 0 if dataset is None else len(dataset)
        if said != real:
            raise InputError(
                f"task {recipe.task.name}: sizes() says that the {name} set has {said:,} samples, but "
                f"{name}_dataset() has {real:,}"
            )
    return checked_sizes(recipe, task)


def _said(recipe: Recipe, task: Task) -> Sizes:
    """What the task's ``sizes()`` gives, which is somebody else's code.

    Raises:
        InputError: it is not :class:`Sizes`.
    """
    sizes: object = task.sizes()
    if not isinstance(sizes, Sizes):
        raise InputError(
            f"task {recipe.task.name}: sizes() gave {sizes!r}; expected disttrain.tasks.base.Sizes(train=N, test=N)"
        )
    return sizes


def _divided(recipe: Recipe, sizes: Sizes) -> Sizes:
    """What is left of the train set once the recipe's validation set is taken from it."""
    fraction = fraction_held_out(recipe)
    if fraction is None:
        return sizes
    train, validation = held_out(sizes.train, fraction)
    return Sizes(len(train), sizes.test, len(validation))
