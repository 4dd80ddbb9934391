"""Before the ranks trust each other: compare what each of them believes, and name what differs and on which ranks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from disttrain.errors import DisttrainError, RankError

if TYPE_CHECKING:
    from disttrain.engine.base import Engine

T = TypeVar("T")
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
    tables: list[Facts] = engine.all_gather_object({t: dict(keys) for t, keys in facts.items()})
    lines = "\n".join(f"  {line}" for line in differences(tables))
    raise RankError(f"the ranks disagree:\n{lines}").on_all_ranks()


def everyone(engine: Engine, action: Callable[[], T]) -> T:
    """Run ``action`` on every rank; when it is refused on some, raise on all, saying on which ranks and why.

    For set-up work whose failure on one rank (a missing file, a package) must not leave the others waiting. Errors that
    are not deliberate go through unchanged: they are bugs, and end the job by themselves.
    """
    result: T = _together(engine, action, range(engine.world.size))
    return result


def on_main(engine: Engine, action: Callable[[], T]) -> T:
    """Run ``action`` on rank 0 alone and give all ranks its result (picklable), or its error."""
    result = _together(engine, action, range(1))
    value: T = engine.broadcast_object(result)
    return value


def _together(engine: Engine, action: Callable[[], T], actors: range) -> Any:
    failure: DisttrainError | None = None
    result: T | None = None
    if engine.world.rank in actors:
        try:
            result = action()
        except DisttrainError as error:
            failure = error
    outcomes: list[DisttrainError | None] = engine.all_gather_object(failure)
    holders: dict[str, list[int]] = {}
    for rank, outcome in enumerate(outcomes):
        if outcome is not None:
            holders.setdefault(str(outcome), []).append(rank)
    if not holders:
        return result
    first = next(outcome for outcome in outcomes if outcome is not None)
    alike = len(holders) == 1 and len(holders[str(first)]) == len(actors)
    lines = [str(first)] if alike else [f"{_ranks(ranks)}: {message}" for message, ranks in holders.items()]
    raise type(first)("\n".join(lines)).on_all_ranks()


def differences(ranks: list[Facts], at_most: int = 12) -> list[str]:
    """One line for each differing key: ``recipe optimizer.lr: 0.1 on ranks 0, 2-3; 0.2 on rank 1``."""
    lines = []
    for topic in _union(ranks):
        tables = [facts.get(topic, {}) for facts in ranks]
        for key in _union(tables):
            holders: dict[str, list[int]] = {}
            for rank, table in enumerate(tables):
                value = json.dumps(table[key], default=str) if key in table else _ABSENT
                holders.setdefault(value, []).append(rank)
            if len(holders) > 1:
                said = "; ".join(f"{value} on {_ranks(held)}" for value, held in holders.items())
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
