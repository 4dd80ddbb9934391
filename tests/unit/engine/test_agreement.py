"""Differences between ranks are named: what, which value, which ranks."""

from __future__ import annotations

from disttrain.engine.agreement import differences


def test_each_difference_is_named_with_its_ranks() -> None:
    same = {"recipe": {"optimizer.lr": 0.1, "seed": 1}, "package": {"torch": "2.13.0"}}
    other = {"recipe": {"optimizer.lr": 0.2, "seed": 1}, "package": {"torch": "2.13.0"}}
    assert differences([same, other, same, same]) == ["recipe optimizer.lr: 0.1 on ranks 0, 2-3; 0.2 on rank 1"]


def test_a_missing_key_is_a_difference() -> None:
    assert differences([{"model": {"w": "float32[2]"}}, {"model": {}}]) == [
        'model w: "float32[2]" on rank 0; (absent) on rank 1'
    ]


def test_many_differences_are_counted() -> None:
    a = {"model": {f"w{i}": 0 for i in range(40)}}
    b = {"model": {f"w{i}": 1 for i in range(40)}}
    lines = differences([a, b])
    assert len(lines) == 13
    assert lines[-1] == "... and 28 more differences"


def test_agreement_has_no_differences() -> None:
    facts = {"recipe": {"lr": float("inf")}}
    assert differences([facts, facts]) == []
