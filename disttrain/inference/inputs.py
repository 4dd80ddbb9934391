"""What a prediction is made for: a set of the task, or a file."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from disttrain.data.arrays import ArrayDataset
from disttrain.data.dataset import Dataset, plain
from disttrain.data.decode import SUFFIXES
from disttrain.data.image_files import ImageFiles
from disttrain.data.numpy_files import open_npy
from disttrain.data.selection import Selection, trained_on
from disttrain.errors import DataError, InputError
from disttrain.inference.evaluate import samples
from disttrain.inference.prepared import Prepared
from disttrain.tasks.base import Task
from disttrain.tasks.classification import Classification
from disttrain.tasks.image_folder import ImageFolder
from disttrain.tasks.make import fraction_held_out

SETS = ("train", "validation", "test")
_ARRAY = "an array of numbers with the samples first, and at least one"


@dataclass(frozen=True, slots=True)
class Inputs:
    """Samples to predict for.

    Attributes:
        dataset: the samples.
        chosen: those that are meant; None: all of them.
        names: of all samples, where they have some.
    """

    dataset: Dataset
    chosen: Selection | None = None
    names: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.dataset if self.chosen is None else self.chosen)


def open_inputs(run: Prepared, word: str) -> Inputs:
    """The samples that ``word`` names: ``train``, ``validation`` or ``test`` of the run's task, as evaluation sees them, or a
    file of inputs without targets: ``.npy`` (samples first), ``.jsonl`` (a line is the input, or an object of its fields),
    and for a task of images an image or a folder of them.

    Raises:
        InputError: there is no such set or file, it holds something else, or the task cannot predict without targets.
    """
    task = run.task
    if word in SETS:
        found = _set(run, word)
        if len(found) == 0:
            raise InputError(f"task {run.recipe.task.name} has no {word} set")
        return found
    path = Path(word)
    if not path.exists():
        raise InputError(f"there is no {word}: expected {', '.join(SETS)}, or a file: .npy, .jsonl, or images")
    if type(task).predict is Task.predict:
        raise InputError(
            f"task {run.recipe.task.name} cannot predict from inputs without targets: give its class predict(model, tensors)"
        )
    if isinstance(task, ImageFolder) and (path.is_dir() or path.name.lower().endswith(SUFFIXES)):
        images = ImageFiles(path, task.images_seen().change)
        return Inputs(images, names=images.names)
    if path.suffix == ".npy":
        return Inputs(_checked(task, _array(path), path))
    if path.suffix == ".jsonl":
        return Inputs(_Lines(path))
    images_too = ", an image or a folder of images" if isinstance(task, ImageFolder) else ""
    raise InputError(f"{path}: expected {', '.join(SETS)}, .npy, .jsonl{images_too}")


def _set(run: Prepared, name: str) -> Inputs:
    fraction = fraction_held_out(run.recipe)
    if name == "train":
        dataset = plain(run.task.train_dataset())
        return Inputs(dataset, trained_on(len(dataset), fraction))
    if name == "validation" and fraction is None and run.task.validation_dataset() is None:
        return Inputs(ArrayDataset(torch.empty(0)))
    return Inputs(*samples(run.task, "validation" if name == "validation" else "test", fraction))


def _array(path: Path) -> torch.Tensor:
    array = open_npy(path, _ARRAY)
    if array.dtype.kind not in "biuf" or array.ndim == 0 or len(array) == 0:
        raise DataError(f"{path}: expected {_ARRAY}")
    return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("="), order="C"))


def _checked(task: Task, inputs: torch.Tensor, path: Path) -> ArrayDataset:
    if isinstance(task, Classification) and tuple(inputs.shape[1:]) != tuple(task.in_shape):
        raise DataError(
            f"{path}: its samples are of shape {tuple(inputs.shape[1:])}; the model's are {tuple(task.in_shape)}"
        )
    return ArrayDataset(inputs)


class _Lines:
    """A file of JSON lines: a sample a line, a tuple of its input alone, or a dict."""

    def __init__(self, path: Path) -> None:
        self._samples: list[Any] = []
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    value = json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise DataError(f"{path}:{number}: is not JSON: {error}") from None
                self._samples.append(value if isinstance(value, dict) else (value,))
        if not self._samples:
            raise DataError(f"{path}: is empty")

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Any:
        return self._samples[index]
