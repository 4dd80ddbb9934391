"""Before the ranks trust each other: compare what each of them believes, and name what differs and on which ranks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from disttrain.errors import RankError

if TYPE_CHECKING:
    from disttrain.engine.base import Engine

Facts = Mapping[str, Mapping[str, Any]]
_ABSENT = "(absent)"


def require_agreement(engine: Engine, facts: Facts) -> None:
    """Raise unless all ranks pass the same ``facts``, a mapping of topic -> key -> JSON value.

    Only 32 bytes a rank travel while everything agrees; the facts themselves are gathered to explain a difference.

    Raises:
        RankError: on every rank, with each differing key, its values, and the ranks that hold them.
    """
    if engine.world.size == 1:
        return
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).digest()
    if len(set(engine.all_gather_object(digest))) == 1:
        return
    everyone: list[Facts] = engine.all_gather_object({t: dict(keys) for t, keys in facts.items()})
    raise RankError("the ranks disagree:\n" + "\n".join(f"  {line}" for line in differences(everyone)))


def differences(everyone: list[Facts], at_most: int = 12) -> list[str]:
    """One line for each differing key: ``recipe optimizer.lr: 0.1 on ranks 0, 2-3; 0.2 on rank 1``."""
    lines = []
    for topic in _union(everyone):
        tables = [facts.get(topic, {}) for facts in everyone]
        for key in _union(tables):
            holders: dict[str, list[int]] = {}
            for rank, table in enumerate(tables):
                value = json.dumps(table[key], default=str) if key in table else _ABSENT
                holders.setdefault(value, []).append(rank)
            if len(holders) > 1:
                said = "; ".join(f"{value} on {_ranks(ranks)}" for value, ranks in holders.items())
                lines.append(f"{topic} {key}: {said}")
    if len(lines) > at_most:
        lines[at_most:] = [f"... and {len(lines) - at_most} more differences"]
    return lines


def _union(tables: list[Mapping[str, Any]] | list[Facts]) -> list[str]:
    return list(dict.fromkeys(key for table in tables for key in table))


def _ranks(ranks: list[int]) -> str:
    """``rank 1`` or ``ranks 0, 2-5``."""
    runs: list[list[int]] = []
    for rank in ranks:
        if runs and rank == runs[-1][1] + 1:
            runs[-1][1] = rank
        else:
            runs.append([rank, rank])
    text = ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)
    return f"rank {text}" if len(ranks) == 1 else f"ranks {text}"
