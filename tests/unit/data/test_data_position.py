"""The position moves with the batches and is written and read strictly."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from disttrain.data import Batch, Position
from disttrain.errors import CheckpointError


def batch(epoch: int, offset: int, size: int, ends_epoch: bool) -> Batch:
    return Batch(epoch, offset, size, ends_epoch, np.arange(size), 0, size, [])


def test_moves_within_and_across_epochs() -> None:
    start = Position(epoch=2, offset=10, samples=110, updates=11)
    assert start.advanced(batch(2, 10, 10, False)) == Position(2, 20, 120, 12)
    assert start.advanced(batch(2, 10, 7, True)) == Position(3, 0, 117, 12)


def test_follows_the_batch_into_the_next_epoch() -> None:
    """With last="drop" a loader may find that what is left of the epoch is too little."""
    assert Position(0, 90, 90, 9).advanced(batch(1, 0, 20, False)) == Position(1, 20, 110, 10)


def test_goes_through_json() -> None:
    position = Position(1, 2, 3, 4).advanced(batch(1, 2, 5, True))
    assert Position.from_dict(json.loads(json.dumps(position.to_dict()))) == position


GOOD: dict[str, Any] = {"epoch": 1, "offset": 2, "samples": 3, "updates": 4}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epoch": -1}, "epoch is -1"),
        ({"offset": 2.0}, "offset is 2.0"),
        ({"samples": True}, "samples is True"),
        ({"updates": "4"}, "updates is '4'"),
        ({"updates": None}, "updates is None"),
        ({"more": 1}, "the keys are"),
    ],
)
def test_anything_else_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        Position.from_dict(GOOD | change)


def test_missing_keys_are_refused() -> None:
    with pytest.raises(CheckpointError, match="expected exactly"):
        Position.from_dict({"epoch": 1})
