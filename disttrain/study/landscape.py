"""The loss along a line and on a plane through a run's weights (Li et al. 2018, arXiv:1712.09913)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from disttrain.errors import InputError
from disttrain.study import pictures
from disttrain.study.surface import Surface, surface

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Direction = dict[str, Tensor]
"""A step of each tensor by name; of those that are not in it, none."""


@dataclass(frozen=True, slots=True)
class Slice:
    """Losses along one or two directions.

    Attributes:
        at: positions along a direction: 0 is the weights themselves, 1 a whole step.
        losses: the mean loss at each position, ``losses[i]``; of a plane ``losses[j][i]``, ``i`` along the first direction.
        about: what the directions are, for a caption.
        samples: of the train set that the loss is over.
    """

    at: list[float]
    losses: list[Any]
    about: str
    samples: int


def slice_1d(
    of: Surface | str | Path,
    *,
    to: str | Path | None = None,
    span: tuple[float, float] | None = None,
    points: int = 41,
    seed: int = 0,
    **where: Any,
) -> Slice:
    """The train loss along a line through a run's weights.

    Args:
        of: a surface, or the directory of a run, of which :func:`disttrain.study.surface.surface` makes one.
        to: another run of the same model, whose weights (and running statistics) position 1 has; None: a random direction,
            filter-normalised, in which 1 is as long as the weights are.
        span: first and last position; None: -0.5 to 1.5 towards another run, else -1 to 1.
        points: how many positions, evenly.
        seed: of the random direction.
        where: further arguments of :func:`~disttrain.study.surface.surface`, for both runs.

    Raises:
        InputError: the other run's model is another one, or see :func:`~disttrain.study.surface.surface`.
        CheckpointError: see there.
    """
    on = of if isinstance(of, Surface) else surface(of, **where)
    if to is None:
        direction, about = random_direction(on, seed), f"a filter-normalised random direction (seed {seed})"
    else:
        direction, about = towards(on, surface(to, **where)), f"from the weights at 0 to those of {Path(to).name} at 1"
    at = _positions(span or ((-1.0, 1.0) if to is None else (-0.5, 1.5)), points)
    return Slice(at, [_loss(on, [(a, direction)]) for a in at], about, on.samples)


def slice_2d(
    of: Surface | str | Path,
    *,
    span: tuple[float, float] = (-1.0, 1.0),
    points: int = 21,
    seed: int = 0,
    **where: Any,
) -> Slice:
    """The train loss on the plane of two random directions, each filter-normalised; arguments as for :func:`slice_1d`."""
    on = of if isinstance(of, Surface) else surface(of, **where)
    first, second = random_direction(on, 2 * seed), random_direction(on, 2 * seed + 1)
    at = _positions(span, points)
    losses = [[_loss(on, [(a, first), (b, second)]) for a in at] for b in at]
    return Slice(at, losses, f"two filter-normalised random directions (seed {seed})", on.samples)


def random_direction(on: Surface, seed: int) -> Direction:
    """Normal numbers, scaled so that each filter (each row of a matrix) has the norm of the filter of the weights that it is
    added to. Vectors, such as biases and norms' scales, stay, and so do buffers: as in the paper's program."""
    generator, found = torch.Generator().manual_seed(seed), Direction()
    for name, p in zip(on.names, on.params, strict=True):
        if p.ndim >= 2:
            drawn = torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p.device)
            mine, theirs = (t.detach().double().flatten(1).norm(dim=1) for t in (drawn, p))
            scale = theirs / mine.clamp(min=1e-300)
            found[name] = drawn * scale.view(-1, *[1] * (p.ndim - 1))
    if not found:
        raise InputError("the model has no weights with filters: vectors alone have no filter-normalised direction")
    return found


def towards(on: Surface, other: Surface) -> Direction:
    """What has to be added to one model's tensors to have the other's.

    Raises:
        InputError: they are not of the same model.
    """
    shapes = [{name: tuple(tensor.shape) for name, tensor in each.tensors.items()} for each in (on, other)]
    if shapes[0] != shapes[1]:
        odd = sorted(name for name in shapes[0].keys() | shapes[1].keys() if shapes[0].get(name) != shapes[1].get(name))
        raise InputError(f"there is no line between the weights of two models: {odd[0]} is not the same in both")
    return {name: other.tensors[name].to(tensor.device) - tensor for name, tensor in on.tensors.items()}


def picture(found: Slice) -> Figure:
    """A slice drawn: a line, or contours of the logarithm of the loss.

    Raises:
        InputError: matplotlib is missing.
    """
    made = pictures.figure(5, 4)
    axes = made.subplots()
    if isinstance(found.losses[0], list):
        logs = torch.tensor(found.losses, dtype=torch.float64).clamp(min=1e-12).log10()
        drawn = axes.contourf(found.at, found.at, logs.numpy(), levels=20)
        made.colorbar(drawn, label=f"log10 of the train loss ({found.samples:,} samples)")
        axes.set_aspect("equal")
    else:
        axes.plot(found.at, found.losses)
        axes.set_ylabel(f"train loss ({found.samples:,} samples)")
    axes.set_title(found.about, fontsize="small")
    return made


def plot(found: Slice, path: str | Path) -> Path:
    """Write a picture of a slice as SVG.

    Raises:
        InputError: matplotlib is missing.
    """
    pictures.write(picture(found), Path(path))
    return Path(path)


def _positions(span: tuple[float, float], points: int) -> list[float]:
    if points < 2 or not span[0] < span[1]:
        raise InputError(
            f"span {span[0]} to {span[1]} in {points} points; expected two positions in rising order, or more"
        )
    return [float(x) for x in torch.linspace(span[0], span[1], points, dtype=torch.float64)]


def _loss(on: Surface, steps: list[tuple[float, Direction]]) -> float:
    by: Direction = {}
    for share, direction in steps:
        for name, step in direction.items():
            by[name] = by[name] + share * step if name in by else share * step
    with on.moved(by):
        return on.loss()
