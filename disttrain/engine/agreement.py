"""Before the ranks trust each other: compare what each of them believes, and name what differs and on which ranks."""

from __future__ import annotations

import contextlib
import hashlib
import json
import pickle
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from disttrain.engine.blame import headline, own_place, short_trace
from disttrain.engine.memory import brief, ran_out
from disttrain.errors import DisttrainError, OutOfMemoryError, RankError, UserCodeError

if TYPE_CHECKING:
    from disttrain.engine.base import Engine

T = TypeVar("T")
Facts = Mapping[str, Mapping[str, Any]]
_ABSENT = "(absent)"
PATIENCE = 20.0
"""Seconds that a rank which failed waits for the others to listen."""


def require_agreement(engine: Engine, facts: Facts) -> None:
    """Raise unless all ranks pass the same ``facts``, a mapping of topic -> key -> JSON value.

    Only 32 bytes a rank travel while everything agrees; the facts themselves are gathered to explain a difference.

    Raises:
        RankError: on every rank, with each differing key, its values, and the ranks that hold them.
    """
    if engine.world.size == 1:
        return
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).digest()
    if len(set(_gather(engine, digest))) == 1:
        return
    tables: list[Facts] = _gather(engine, {t: dict(keys) for t, keys in facts.items()})
    lines = "\n".join(f"  {line}" for line in differences(tables))
    raise RankError(f"the ranks disagree:\n{lines}").on_all_ranks()


def everyone(engine: Engine, action: Callable[[], T]) -> T:
    """The gate of set-up: run ``action`` on every rank; when it fails on some, raise on all.

    What all ranks ran into alike is raised as it is, and said once; otherwise the message names the ranks. Gates may stand
    inside gates, and ``action`` may hold collectives: a rank that fails says so in its next exchange of objects, and
    whichever gate or :func:`require_agreement` the others have reached tells them. An exchange of tensors cannot, so it has
    to come right after a gate.

    Raises:
        DisttrainError: on every rank. Of an exception that was not raised on purpose: :class:`UserCodeError` if it comes
            from the user's own code, else :class:`RankError` with its traceback.
    """
    result: T = _through_gate(engine, action, alone=False)
    return result


def on_main(engine: Engine, action: Callable[[], T]) -> T:
    """Run ``action`` on rank 0 alone and give all ranks its result (picklable), or its error; see :func:`everyone`."""
    result = _through_gate(engine, action if engine.world.is_main else lambda: None, alone=True)
    value: T = engine.broadcast_object(result)
    return value


@dataclass(frozen=True, slots=True)
class _Failure:
    """What a rank sends in place of the object that the others expect. ``alone``: no other rank was to act."""

    error: DisttrainError
    host: str
    alone: bool


def _through_gate(engine: Engine, action: Callable[[], Any], *, alone: bool) -> Any:
    try:
        result = action()
    except Exception as error:
        if engine.lost_peer(error) or (isinstance(error, DisttrainError) and error.everywhere):
            raise
        _tell(engine, error, alone)
    _gather(engine, None)
    return result


def _tell(engine: Engine, error: Exception, alone: bool) -> NoReturn:
    """Let all ranks know of ``error``, and raise what they make of it.

    If the others do not listen within ``PATIENCE`` seconds (they are gone, at work, or exchange tensors), this rank raises
    its own error, and the end of it is what they notice.
    """
    mine = _deliberate(error)
    answers: list[list[Any]] = []

    def exchange() -> None:
        with contextlib.suppress(Exception):  # a peer that is gone has nothing to say; ours is raised below
            answers.append(engine.all_gather_object(_Failure(_portable(mine), socket.gethostname(), alone)))

    farewell = threading.Thread(target=exchange, daemon=True)
    farewell.start()
    farewell.join(PATIENCE)
    raise (_joint(engine, answers[0]) if answers else mine) from error.__cause__


def _gather(engine: Engine, value: Any) -> list[Any]:
    """Every rank's ``value``; raises on all ranks what a rank sends that has failed meanwhile."""
    values = engine.all_gather_object(value)
    if any(isinstance(found, _Failure) for found in values):
        raise _joint(engine, values)
    return values


def _joint(engine: Engine, values: list[Any]) -> DisttrainError:
    """One error for all ranks, of the class that the first of them had."""
    failures = {rank: value for rank, value in enumerate(values) if isinstance(value, _Failure)}
    first = failures[min(failures)]
    holders: dict[str, list[int]] = {}
    for rank, failure in failures.items():
        holders.setdefault(str(failure.error), []).append(rank)
    if len(holders) == 1 and (first.alone or len(failures) == engine.world.size):
        return first.error.on_all_ranks()
    several = engine.world.local_size < engine.world.size
    lines = []
    for message, ranks in holders.items():
        hosts = ", ".join(dict.fromkeys(failures[rank].host for rank in ranks))
        lines.append(f"{_ranks(ranks)}{f' on {hosts}' if several else ''}: {message}")
    joint = _plain(type(first.error))("\n".join(lines))
    if isinstance(joint, OutOfMemoryError) and isinstance(first.error, OutOfMemoryError):
        joint.explained = first.error.explained
    return joint.on_all_ranks()


def _deliberate(error: Exception) -> DisttrainError:
    if isinstance(error, DisttrainError):
        return error
    if ran_out(error):
        short = OutOfMemoryError(f"out of memory before the first update: {brief(error)}")
        short.explained = False
        return short
    place = own_place(error)
    text = f"{headline(error)}\n{short_trace(error)}"
    return UserCodeError(f"{place}: {text}") if place else RankError(text)


def _portable(error: DisttrainError) -> DisttrainError:
    """``error`` as it can travel: with all it holds, or at least with its text and exit code."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # a class of somebody's own may hold anything, or ask for other arguments
        return _plain(type(error))(str(error))
    return error


def _plain(kind: type[DisttrainError]) -> type[DisttrainError]:
    """The nearest class of ours that is made from a text."""
    return next(c for c in kind.__mro__ if c.__module__ == DisttrainError.__module__)


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
