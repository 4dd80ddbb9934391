"""Evaluation: every sample of a set once, over all ranks, and exact totals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from torch import Tensor

from disttrain.data.batch import MicroBatch
from disttrain.data.dataset import Dataset, plain
from disttrain.data.evaluation import evaluation_batches
from disttrain.data.selection import Selection, held_out
from disttrain.engine.memory import out_of_memory_as
from disttrain.inference.prepared import Prepared
from disttrain.inference.totals import added_up
from disttrain.tasks.base import Task
from disttrain.tasks.make import collate_of, fraction_held_out

Split = Literal["train", "validation", "test"]


def evaluate(run: Prepared, split: Split = "test") -> dict[str, float]:
    """The task's metrics over all samples of a split (see :func:`samples`), the same on all ranks.

    Ranks sum over their own contiguous shares; sums and counts are added up, then divided, so the result does not depend
    on the number of ranks but for the order of float64 additions.
    """
    engine, task, at_once, model = run.engine, run.task, run.recipe.evaluated_at_once, run.model
    dataset, chosen = samples(task, split, fraction_held_out(run.recipe))
    batches = evaluation_batches(
        dataset,
        rank=engine.world.rank,
        size=engine.world.size,
        batch=at_once,
        chosen=chosen,
        workers=run.recipe.data.workers,
        device=engine.world.device,
        collate=collate_of(task),
    )

    def measure(micro: MicroBatch) -> Mapping[str, Tensor]:
        return run.call(task.evaluate, model, micro)

    with out_of_memory_as(lambda: f"{at_once} samples at once: lower evaluate.batch"):
        totals = added_up(engine, model, batches, measure, f"task {run.recipe.task.name}: evaluate()")
    return task.summarise(totals)


def samples(task: Task, split: Split, fraction: float | None) -> tuple[Dataset, Selection | None]:
    """A set of the task and the samples of it that make up a split; None: all of them.

    Of the train set, as evaluation sees it (:func:`disttrain.data.dataset.plain`), ``validation`` takes the ``fraction`` that is
    held out, unless the task has such a set of its own; ``train`` takes as many of the others as the test set has, or all
    of them if they are fewer. Both are fixed choices that nothing but the sizes decides.
    """
    if split == "test":
        return task.test_dataset(), None
    own = task.validation_dataset()
    if split == "validation" and own is not None:
        return own, None
    dataset = plain(task.train_dataset())
    total = len(dataset)
    everything = Selection(total, 0, total)
    train, validation = (everything, everything.first(0)) if fraction is None else held_out(total, fraction)
    return dataset, validation if split == "validation" else train.first(len(task.test_dataset()))


def deciding(run: Prepared) -> Split:
    """The split whose metric says which checkpoint is the best and when to stop early."""
    own = run.task.validation_dataset() is not None
    return "validation" if own or run.recipe.data.validation is not None else "test"


def deciding_metric(run: Prepared) -> str:
    """The metric of that split."""
    early = run.recipe.early_stopping
    return early.metric if early is not None and early.metric is not None else run.task.metric


def regular(run: Prepared) -> list[Split]:
    """The splits of every evaluation, the deciding one last."""
    settings, last = run.recipe.evaluate, deciding(run)
    return ["train", last] if settings is not None and settings.train else [last]


def at_the_end(run: Prepared) -> list[Split]:
    """The splits that only the last evaluation has: the test set where a validation set decides, if it is wanted."""
    settings = run.recipe.evaluate
    return [] if deciding(run) == "test" or settings is None or not settings.test else ["test"]


def results(run: Prepared) -> dict[str, float]:
    """The metrics of the test set, and of the validation set if there is one, by name."""
    return by_name({split: evaluate(run, split) for split in dict.fromkeys((deciding(run), "test"))})


def by_name(found: Mapping[Split, Mapping[str, float]]) -> dict[str, float]:
    """All metrics in one: those of the test set under their own names, others as ``SPLIT_NAME``."""
    others = {f"{split}_{name}": value for split in found if split != "test" for name, value in found[split].items()}
    return {**others, **found.get("test", {})}
