"""The numbers of a record, by the names that TensorBoard, W&B and MLflow show them under."""

from __future__ import annotations

from collections.abc import Iterator, Mapping


def scalars(record: Mapping[str, object]) -> dict[str, float]:
    """``train/NAME`` of each number, or ``SPLIT/NAME`` where it is an evaluation (``train_set/NAME`` on the train set, to stay
    apart from the losses of updates), and ``train/NAME/KEY`` of numbers by name. Empty for an event; the step is left out.

    >>> scalars({"step": 3, "loss": 0.5, "losses": {"a": 0.25}}), scalars({"split": "test", "step": 3, "accuracy": 0.75})
    ({'train/loss': 0.5, 'train/losses/a': 0.25}, {'test/accuracy': 0.75})
    """
    if "event" in record or not isinstance(record.get("step"), int):
        return {}
    split = record.get("split")
    group = "train" if split is None else "train_set" if split == "train" else split
    return {f"{group}/{name}": value for name, value in numbers({k: v for k, v in record.items() if k != "step"})}


def numbers(record: Mapping[str, object]) -> Iterator[tuple[str, float]]:
    """Name and value of each number, those within a mapping as ``NAME/KEY``."""
    for name, value in record.items():
        if isinstance(value, Mapping):
            yield from ((f"{name}/{key}", inner) for key, inner in numbers(value))
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield name, value
