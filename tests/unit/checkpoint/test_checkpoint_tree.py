"""`flatten` and `unflatten` are inverses, and `unflatten` takes nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_cases import same
from hypothesis import given, settings
from hypothesis import strategies as st

from disttrain.checkpoint.strict_json import dump_json, parse_json
from disttrain.checkpoint.tree import flatten, unflatten
from disttrain.errors import CheckpointError

WHERE = Path("state.json")

leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.lists(st.floats(width=32), max_size=3).map(torch.tensor)
)
keys = st.integers() | st.text(max_size=5) | st.sampled_from(["$tensor", "$items", "a.b", "a", "b"])
trees = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3) | st.lists(inner, max_size=3).map(tuple) | st.dictionaries(keys, inner, max_size=3)
    ),
    max_leaves=12,
)


@given(tree=trees)
@settings(max_examples=300)
def test_round_trip_through_bytes(tree: Any) -> None:
    value, tensors = flatten(tree)
    data = dump_json(value)
    assert same(unflatten(parse_json(data, WHERE), tensors, WHERE), tree)
    json.loads(data, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_tensors_are_named_by_their_path() -> None:
    x, y = torch.zeros(1), torch.ones(1)
    _, tensors = flatten({"state": {12: {"exp_avg": x, "all": [y]}}})
    assert {name: tensor.item() for name, tensor in tensors.items()} == {
        "state.12.exp_avg": 0,
        "state.12.all.0": 1,
    }
    _, tensors = flatten({"a.b": x, "a": {"b": y}})
    assert sorted(tensors) == ["a.b", "a.b'"]


@pytest.mark.parametrize(
    "value",
    [
        {"$unknown": 1},
        {"$tensor": "missing"},
        {"$tensor": 3},
        {"$tensor": "t", "more": 1},
        {"$float": "1.5"},
        {"$float": []},
        {"$tuple": {}},
        {"$items": [[1, 2], [1, 3]]},
        {"$items": [[1]]},
        {"$items": [[None, 1]]},
        {"$items": [[True, 1]]},
        {"$items": 3},
        [{"$tensor": "t"}, {"$tensor": "t"}],
        {},
    ],
)
def test_anything_else_is_refused(value: Any) -> None:
    with pytest.raises(CheckpointError, match=r"state\.json"):
        unflatten(value, {"t": torch.zeros(1)}, WHERE)


def test_deep_json_is_refused() -> None:
    for depth in (150, 100_000):
        data = b"[" * depth + b"]" * depth
        with pytest.raises(CheckpointError):
            unflatten(parse_json(data, WHERE), {}, WHERE)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "{} {}",
        '{"a": 1, "a": 1}',
        '[{"a": {"b": 1, "b": 2}}]',
        "NaN",
        "[Infinity]",
        "-Infinity",
        "1e999",
        "-1e999",
        "1" * 5000,
        "'a'",
        "\ufeff{}",
        '"\x01"',
        "01",
    ],
)
def test_loose_json_is_refused(text: str) -> None:
    with pytest.raises(CheckpointError, match=r"state\.json: not valid JSON"):
        parse_json(text.encode(), WHERE)


def test_json_that_is_not_utf8_is_refused() -> None:
    for data in (b'"\xff"', '{"a": 1}'.encode("utf-16"), b"\x80"):
        with pytest.raises(CheckpointError, match="not valid JSON"):
            parse_json(data, WHERE)
