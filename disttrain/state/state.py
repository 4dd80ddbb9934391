"""Everything that a loop of one's own goes on from, saved and loaded on all ranks."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn

from disttrain.checkpoint import Checkpoint, capture_rng, flatten, restore_rng, run_lock
from disttrain.checkpoint.fit import check_form, check_settings, continuing
from disttrain.data.batch import Batch
from disttrain.data.position import Position
from disttrain.engine.agreement import everyone, on_main, require_agreement
from disttrain.engine.base import Engine
from disttrain.engine.exchange import Memory
from disttrain.errors import CheckpointError, InputError
from disttrain.inference.weights import load_weights, read
from disttrain.rundir.rundir import RECIPE, check_place, has_checkpoints, make_place
from disttrain.state.ranks import described, fits, write
from disttrain.state.share import gather, scatter, share

log = logging.getLogger("disttrain")
_STATE = {"position", "values", "parts", "ranks"}
_RANK = {"random", "norms"}


class State:
    """What a loop of your own is made of, in checkpoints that are complete or absent, hashed, and without pickle.

    All ranks make it, load and save alike; rank 0 reads and writes. The directory is locked until :meth:`close`, the end of a
    ``with`` block, or the end of the process.

    Args:
        engine: of this job.
        directory: it is made where it does not exist; ``checkpoints/step-00001234`` are below it.
        keep: how many of the newest checkpoints are kept.
        values: plain values to begin with, the same on all ranks.
        parts: by name, what has ``state_dict`` and ``load_state_dict``: models (as :meth:`Engine.prepare` gave them, or plain),
            optimizers, schedulers, precisions, averages. ``model`` is stored under its own parameter names, the tensors of
            other models as ``NAME.parameter``.

    Attributes:
        directory: as given.
        position: the batch to come next, for ``loader(position=...)``, and the updates made so far.
        values: your own, such as a best accuracy: numbers, text, lists and dicts; change it as you like.

    Raises:
        InputError: on all ranks: a part has no state, or another job or a recipe's run has the directory.

    Example::

        state = disttrain.State(engine, "runs/mine", model=model, optimizer=optimizer)
        state.load()
        for batch in disttrain.data.loader(dataset, engine.world, global_batch=512, position=state.position):
            ...
            state.advance(batch)
            if state.position.updates % 100 == 0:
                state.save()
    """

    def __init__(
        self,
        engine: Engine,
        directory: str | Path,
        *,
        keep: int = 3,
        values: Mapping[str, Any] | None = None,
        **parts: Any,
    ) -> None:
        self.position = Position()
        self.values: dict[str, Any] = dict(values or {})
        self._engine, self.directory, self._keep = engine, Path(directory), keep
        self._leave = ExitStack()
        everyone(engine, lambda: self._sort(parts))
        on_main(engine, self._take)

    def advance(self, batch: Batch) -> None:
        """``batch`` has been trained on: move the position past it."""
        self.position = self.position.advanced(batch)

    def save(self) -> None:
        """Save all as it stands, under the number of updates; returns on all ranks once it is on the disk, or raises on all.

        Running statistics of batch norm are each rank's own while it trains: each rank's are stored, and their mean as the
        model's. What PowerSGD remembers is not stored, and a warning says so.

        Raises:
            CheckpointError: it cannot be saved; the message says why.
            RankError: a rank failed, or the ranks stand at different positions or have different values.
        """
        engine = self._engine
        engine.phase = f"saving after update {self.position.updates}"
        facts = everyone(engine, lambda: {"position": self.position.to_dict(), "values": flatten(self.values)[0]})
        require_agreement(engine, {"state": facts})
        if type(engine.memory) is not Memory and engine.world.is_main:
            log.warning("what the gradients' compression left out so far is not saved in a loop of one's own")
        mine = {"random": capture_rng(engine.world.device), "norms": self._norms()}
        ranks = gather(engine, mine)

        def make() -> Checkpoint:
            parts = {name: part.state_dict() for name, part in self._others.items()}
            state = {**facts, "values": self.values, "parts": parts, "ranks": ranks}
            return Checkpoint(step=self.position.updates, model=self._tensors(), state=state)

        with self._mean_statistics():
            write(engine, self.directory, make, keep=self._keep)

    def load(self) -> bool:
        """Go on from the newest checkpoint that is valid, on all ranks. Returns whether there was one to go on from.

        On as many ranks as it was saved on, of the same kind of device, each takes up its own random state and running
        statistics; on others, random states stay as they are and running statistics are the mean of the ranks'.

        Raises:
            NoCheckpointError: on all ranks: there are checkpoints, and none is valid.
            CheckpointError: on all ranks: it is of other parts than these.
        """
        engine = self._engine
        if not on_main(engine, lambda: has_checkpoints(self.directory)):
            return False
        checkpoint, refused = read(engine, self.directory)
        for reason in refused if engine.world.is_main else ():
            log.warning("checkpoint passed over: %s", reason)
        found = on_main(engine, lambda: self._check(checkpoint))
        on_main(engine, lambda: self._load_tensors(checkpoint))
        for module in self._modules.values():
            engine.broadcast_tensors(module.state_dict().values())
        whole = checkpoint.state if checkpoint is not None else {"ranks": None}
        state = share(engine, {k: v for k, v in whole.items() if k != "ranks"})
        everyone(engine, lambda: self._load(state, found["step"]))
        if fits(engine, found):
            mine = scatter(engine, whole["ranks"])
            everyone(engine, lambda: self._take_up(mine))
        return True

    def close(self) -> None:
        """Let others have the directory."""
        self._leave.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _sort(self, parts: Mapping[str, Any]) -> None:
        """Models, whose tensors are stored by name, and all others."""
        for name, part in parts.items():
            if not (hasattr(part, "state_dict") and hasattr(part, "load_state_dict")):
                raise InputError(
                    f"State: {name} is a {type(part).__name__}, which has no state_dict() and load_state_dict(); plain "
                    "values go into values={...}"
                )
        self._modules = {n: self._plain(part) for n, part in parts.items() if isinstance(part, nn.Module)}
        self._others = {n: part for n, part in parts.items() if not isinstance(part, nn.Module)}
        if len(self._tensors()) < sum(len(module.state_dict()) for module in self._modules.values()):
            raise InputError(
                f"State: {', '.join(self._modules)} have tensors of the same name: give the models other names"
            )

    def _plain(self, model: nn.Module) -> nn.Module:
        """The module itself, whose names are those of no wrapper: neither of the engine's nor of torch.compile's."""
        for _ in range(2):  # in either order
            model = self._engine.unwrap(getattr(model, "_orig_mod", model))
        return model

    def _take(self) -> None:
        """On rank 0: the directory is this job's from now on."""
        check_place(self.directory)
        if (self.directory / RECIPE).exists():
            raise InputError(f"{self.directory}: is the directory of a recipe's run; choose another one")
        make_place(self.directory)
        self._leave.enter_context(run_lock(self.directory))

    def _tensors(self) -> dict[str, Tensor]:
        return {
            _prefix(name) + key: tensor
            for name, module in self._modules.items()
            for key, tensor in module.state_dict().items()
        }

    def _statistics(self) -> list[nn.modules.batchnorm._NormBase]:
        modules = (m for module in self._modules.values() for m in module.modules())
        return [m for m in modules if isinstance(m, nn.modules.batchnorm._NormBase)]

    def _norms(self) -> dict[str, Any]:
        """What batch norm has counted on this rank alone."""
        return {str(i): {k: b.clone() for k, b in norm.named_buffers()} for i, norm in enumerate(self._statistics())}

    @contextmanager
    def _mean_statistics(self) -> Iterator[None]:
        mine = self._norms()
        for module in self._modules.values():
            self._engine.average_batch_norm(module)
        try:
            yield
        finally:
            self._put_back(mine)

    def _put_back(self, norms: dict[str, Any]) -> None:
        with torch.no_grad():
            for i, norm in enumerate(self._statistics()):
                for key, buffer in norm.named_buffers():
                    buffer.copy_(norms[str(i)][key])

    def _check(self, checkpoint: Checkpoint | None) -> dict[str, Any]:
        assert checkpoint is not None
        if checkpoint.state.keys() != _STATE or not isinstance(checkpoint.state["parts"], dict):
            raise CheckpointError(f"{self.directory}: its checkpoints are not those of a loop of one's own")
        stored, wanted = sorted(map(str, checkpoint.state["parts"])), sorted(self._others)
        if stored != wanted:
            raise CheckpointError(
                f"{self.directory}: was saved with {', '.join(stored) or 'nothing'} beside its models, and is to be loaded "
                f"into {', '.join(wanted) or 'nothing'}"
            )
        return described(checkpoint, _RANK)

    def _load_tensors(self, checkpoint: Checkpoint | None) -> None:
        assert checkpoint is not None
        left = dict(checkpoint.model)
        for name, module in self._modules.items():
            keys = {key: _prefix(name) + key for key in module.state_dict()}
            try:
                load_weights(module, {key: left.pop(whole) for key, whole in keys.items() if whole in left})
            except CheckpointError as error:
                raise CheckpointError(f"{self.directory}: {name}: {error}") from None
        if left:
            raise CheckpointError(f"{self.directory}: {len(left)} tensors are of no model given, {min(left)} for one")

    def _load(self, state: dict[str, Any], step: int) -> None:
        if not isinstance(state["position"], dict) or not isinstance(state["values"], dict):
            raise CheckpointError(f"{self.directory}: position and values are not what disttrain writes")
        self.position = Position.from_dict(state["position"])
        if self.position.updates != step:
            raise CheckpointError(f"the checkpoint of update {step} is at {self.position.updates}")
        self.values = state["values"]
        for name, part in self._others.items():
            _continue(name, part, state["parts"][name])

    def _take_up(self, mine: dict[str, Any]) -> None:
        check_form(self._norms(), mine["norms"], "ranks.norms")
        self._put_back(mine["norms"])
        restore_rng(mine["random"], self._engine.world.device)


def _prefix(name: str) -> str:
    """Of the stored names of a model's tensors."""
    return "" if name == "model" else f"{name}."


def _continue(name: str, part: Any, stored: Any) -> None:
    """Load a part's state.

    Raises:
        CheckpointError: it is not of this part.
    """
    optimizer = isinstance(part, torch.optim.Optimizer)
    groups = [dict(group) for group in part.param_groups] if optimizer else []
    with continuing(f"the checkpoint's {name}"):
        part.load_state_dict(stored)
    if optimizer:
        check_settings(part, groups)
