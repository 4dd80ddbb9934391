"""Callbacks of a run: called at five moments, the same for all ranks in what they lead to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch

from disttrain.engine.agreement import everyone
from disttrain.engine.base import Engine
from disttrain.engine.blame import headline, short_trace
from disttrain.errors import DisttrainError, RankError, UserCodeError
from disttrain.hooks.view import Running, RunView
from disttrain.telemetry import Sink


class Callback:
    """Something that watches a run; define the methods that you need. Any object with some of them will do.

    They read, and may call ``run.stop(reason)``; they do not change the run. What one raises ends the run on all ranks, with one
    message that names it.

    Attributes:
        every_rank: whether it is made and called on all ranks, and not on rank 0 alone.
    """

    every_rank: ClassVar[bool] = False

    def on_start(self, run: RunView) -> None:
        """Before the first update of this start, a resumed one too."""

    def on_update(self, run: RunView) -> None:
        """After every update. It must not make the host wait for the device: no ``.item()``, no printing of tensors. With it,
        ranks exchange two numbers after every update, so that a stop is exact."""

    def on_evaluation(self, run: RunView) -> None:
        """After every evaluation: ``run.metrics``."""

    def on_save(self, run: RunView) -> None:
        """When a checkpoint is on the disk: ``run.run_dir / "checkpoints"``."""

    def on_end(self, run: RunView) -> None:
        """When the run is over and saved, or was stopped on request; not after an error."""


METHODS = ("on_start", "on_update", "on_evaluation", "on_save", "on_end")


@dataclass(frozen=True, slots=True)
class Member:
    """A callback of the run, known on all ranks.

    Attributes:
        name: for messages.
        uses: the methods that it defines.
        callback: the object, where it is called; None on the other ranks.
    """

    name: str
    uses: frozenset[str]
    callback: object | None


class Callbacks:
    """Calls them. Without any, every method returns at once and nothing is exchanged.

    Whether somebody asked for a stop, or failed, is agreed upon right after a call, and only where a callback has that method,
    so a run ends after the same update on all ranks, whatever their clocks say.
    """

    def __init__(self, members: Sequence[Member] = ()) -> None:
        self._members = tuple(members)
        self._uses = frozenset[str]().union(*(member.uses for member in members))
        self._engine: Engine
        self._view: RunView
        self.stopped = ""

    def watch(self, run: Running, run_dir: Path, sink: Sink) -> Sink:
        """Look at this run from now on; returns the sink to use, which notes training lines in passing."""
        if not self._members:
            return sink
        self._engine, self._view = run.engine, RunView(run, run_dir)
        return _Noting(sink, self._view)

    def start(self) -> None:
        """Call ``on_start``.

        Raises:
            UserCodeError, RankError: on all ranks: one failed.
        """
        self._at("on_start", UserCodeError)

    def update(self) -> None:
        """Call ``on_update``; see :meth:`start`. One small exchange of CPU tensors."""
        if "on_update" not in self._uses:
            return
        error: DisttrainError | None = None
        try:
            self._call("on_update", RankError)
        except DisttrainError as found:
            error = found
        ballot = self._engine.all_reduce(torch.tensor([int(bool(self._view.asked)), int(error is not None)]))
        if ballot[1]:
            everyone(self._engine, lambda: _raise(error))
        if ballot[0]:
            self._agree()

    def evaluation(self) -> None:
        """Call ``on_evaluation``; see :meth:`start`."""
        self._at("on_evaluation")

    def save(self) -> None:
        """Call ``on_save``; see :meth:`start`."""
        self._at("on_save")

    def end(self) -> None:
        """Call ``on_end``; see :meth:`start`. The run is over: what it asks for comes too late."""
        if "on_end" in self._uses:
            everyone(self._engine, lambda: self._call("on_end", RankError))

    def _at(self, method: str, kind: type[DisttrainError] = RankError) -> None:
        if method in self._uses:
            everyone(self._engine, lambda: self._call(method, kind))
            self._agree()

    def _agree(self) -> None:
        asked: list[str] = self._engine.all_gather_object(self._view.asked)
        self.stopped = self._view.stop_reason = self.stopped or next(filter(None, asked), "")

    def _call(self, method: str, kind: type[DisttrainError]) -> None:
        for member in self._members:
            if member.callback is None or method not in member.uses:
                continue
            try:
                getattr(member.callback, method)(self._view)
            except Exception as error:
                if self._engine.lost_peer(error):
                    raise
                where = f"callback {member.name} failed in {method} at update {self._view.step}"
                raise kind(f"{where}: {headline(error)}\n{short_trace(error)}") from error


class _Noting:
    """Notes the latest training line, here and on the ranks that write none."""

    def __init__(self, sink: Sink, view: RunView) -> None:
        self._sink = sink
        self._view = view

    def log(self, record: Mapping[str, object]) -> None:
        if "event" not in record and "split" not in record:
            self._view.line = record
        self._sink.log(record)

    def close(self) -> None:
        self._sink.close()


def _raise(error: DisttrainError | None) -> None:
    if error is not None:
        raise error
