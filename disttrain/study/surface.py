"""The loss over a fixed part of a run's train set as a function of its weights: what sharpness and pictures are of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from disttrain.api.ambient import alone, joined
from disttrain.api.passed import AnyModel, AnyTask, Passed
from disttrain.config import saved_recipe
from disttrain.data.dataset import plain
from disttrain.data.evaluation import evaluation_batches
from disttrain.data.selection import Selection, trained_on
from disttrain.errors import InputError
from disttrain.inference.choice import Choice, Which
from disttrain.inference.prepared import Prepared
from disttrain.inference.trained import load_trained
from disttrain.study.train_loss import items_of, prepared, refuse_moving_loss, summed_loss
from disttrain.tasks.make import collate_of, fraction_held_out


class Surface:
    """A loss over fixed data, twice differentiable in the weights of a model.

    Args:
        model: stays as it is, on its device; put it into the mode that is meant.
        sums: each gives the summed loss of a part of the data, with a graph to the model's weights.
        items: how many losses all of them are the sum of.
        samples: how many samples that is of; for the record.

    Attributes:
        params: the parameters that require a gradient; vectors, float64, are these one after the other.
        names: theirs.
        tensors: all floating-point parameters and buffers by name, each once.
    """

    def __init__(self, model: nn.Module, sums: Sequence[Callable[[], Tensor]], items: int, samples: int) -> None:
        self._sums, self._items, self.samples = sums, items, samples
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.names, self.params = list(trained), list(trained.values())
        named = [*model.named_parameters(), *model.named_buffers()]
        self.tensors = {name: tensor.detach() for name, tensor in named if tensor.is_floating_point()}

    def loss(self) -> float:
        """The mean loss at the weights that the model has."""
        with torch.no_grad():
            return sum(float(part().double()) for part in self._sums) / self._items

    def zeros(self) -> Tensor:
        """(n,) float64, on the parameters' device."""
        return torch.zeros(sum(p.numel() for p in self.params), dtype=torch.float64, device=self.params[0].device)

    def gradient(self) -> Tensor:
        """(n,) float64: that of the mean loss."""
        found = self.zeros()
        for part in self._sums:
            found += _flat(torch.autograd.grad(part(), self.params, materialize_grads=True))
        return found / self._items

    def curvature(self, vector: Tensor) -> Tensor:
        """(n,) float64: the Hessian of the mean loss times ``vector``, by a backward pass through the backward pass."""
        pieces = torch.split(vector, [p.numel() for p in self.params])
        directions = [piece.view_as(p).to(p) for piece, p in zip(pieces, self.params, strict=True)]
        found = torch.zeros_like(vector)
        # torch's fused attention kernels have no second derivative.
        with sdpa_kernel(SDPBackend.MATH):
            for part in self._sums:
                grads = torch.autograd.grad(part(), self.params, create_graph=True, materialize_grads=True)
                along = torch.stack([(g * d).sum() for g, d in zip(grads, directions, strict=True)]).sum()
                if along.requires_grad:  # a loss that is linear in the weights has none
                    found += _flat(torch.autograd.grad(along, self.params, materialize_grads=True))
        return found / self._items

    @contextmanager
    def moved(self, by: dict[str, Tensor]) -> Iterator[None]:
        """Inside, each of ``tensors`` that ``by`` names is so much further; afterwards all are as before."""
        before = {name: self.tensors[name].clone() for name in by}
        try:
            for name, step in by.items():
                self.tensors[name].add_(step.to(self.tensors[name]))
            yield
        finally:
            for name, value in before.items():
                self.tensors[name].copy_(value)


def surface(
    run_dir: str | Path,
    *,
    samples: int = 1024,
    checkpoint: Which = "newest",
    average: bool | None = None,
    task: AnyTask | None = None,
    model: AnyModel | None = None,
    device: str = "auto",
    trust: bool = False,
) -> Surface:
    """The train loss of a run at one of its checkpoints, in this process alone.

    The model is in evaluation mode: no dropout, batch norm with its running statistics. The data are the first ``samples`` of
    a fixed permutation of what is trained on, as evaluation sees them: neither augmented nor mixed. Several losses are added up
    by ``loss.weights``; penalties are left out. Computed in float32 or float64, whichever the weights are of.

    Args:
        run_dir: the run directory.
        samples: of the train set; all, where it has fewer.
        checkpoint, average, trust: as for :func:`disttrain.evaluate`.
        task, model: what was passed to :func:`disttrain.train`.
        device: ``auto``, ``cpu``, ``cuda``.

    Raises:
        InputError: see :func:`disttrain.evaluate`; or ``samples`` is below 1, or the loss is over the global batch or of weights
            that were learned.
        CheckpointError: the checkpoint does not load.
    """
    if samples < 1:
        raise InputError(f"samples is {samples}; expected at least 1")
    given, place = Passed(task, model), Path(run_dir)
    with alone(), given.known(), joined("local", device, None) as (engine, _):
        recipe = saved_recipe(place, given.overrides(), trust=trust)
        ready, _ = load_trained(recipe, place, engine, Choice(checkpoint, average))
        refuse_moving_loss(recipe, ready.task)
        return _of_train_set(ready, samples)


def _of_train_set(ready: Prepared, samples: int) -> Surface:
    task, model = ready.task, ready.model.eval()
    dataset = plain(task.train_dataset())
    everything = Selection(len(dataset), 0, len(dataset))
    chosen = (trained_on(len(dataset), fraction_held_out(ready.recipe)) or everything).first(samples)
    batches = evaluation_batches(
        dataset,
        rank=0,
        size=1,
        batch=ready.recipe.evaluated_at_once,
        chosen=chosen,
        device=ready.engine.world.device,
        collate=collate_of(task),
    )
    sums: list[Callable[[], Tensor]] = []
    items = 0
    for micro in batches:
        items += items_of(task, micro)
        sums.append(partial(summed_loss, ready, prepared(ready, micro)))
    return Surface(model, sums, items, len(chosen))


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().double().flatten() for tensor in tensors])
