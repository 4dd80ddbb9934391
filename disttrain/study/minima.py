"""How sharp the minima are that the results of a study have found, batch by batch (Keskar et al. 2017, arXiv:1609.04836), and the
loss between and around them. Kept in the study's directory: what is known of a run's weights is not computed again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from disttrain.errors import CheckpointError, DivergedError
from disttrain.inference.choice import find, samples_seen
from disttrain.rundir.rundir import replace_file
from disttrain.rundir.written import read_json
from disttrain.study.landscape import Slice, slice_1d, slice_2d
from disttrain.study.sharpness import Eigenvalue, largest_eigenvalue
from disttrain.study.surface import Surface, surface
from disttrain.study.train_loss import refuse_moving_loss
from disttrain.tasks.make import make_task

if TYPE_CHECKING:
    from disttrain.config import Recipe
    from disttrain.study.study import Point, Run

KEPT = "sharpness.json"
FEW = 10**6
"""Parameters up to which the vectors of Lanczos' method are held, 8 bytes a number and up to 100 of them."""
LINE, PLANE = 31, 15
"""Losses along a line, and along each side of a plane."""


@dataclass(frozen=True, slots=True)
class Minimum:
    """Where a result has ended.

    Attributes:
        seen: samples of training by then.
    """

    run_dir: str
    batch: int
    seed: int
    seen: int
    eigenvalue: Eigenvalue


@dataclass(frozen=True, slots=True)
class Minima:
    """Of a study.

    Attributes:
        slices: by name: ``line`` from the smallest batch's first result to the largest one's, and ``plane-B`` around either.
        left_out: in words, the runs without one.
    """

    found: tuple[Minimum, ...] = ()
    slices: tuple[tuple[str, Slice], ...] = ()
    left_out: tuple[str, ...] = ()

    def of(self, batch: int) -> list[float]:
        """The largest eigenvalues, one a run."""
        return [each.eigenvalue.value for each in self.found if each.batch == batch]


NO_MINIMA = Minima()


def refuse_without(recipe: Recipe) -> None:
    """See that there is one train loss, before hours are spent.

    Raises:
        InputError: there is none.
    """
    refuse_moving_loss(recipe, make_task(recipe))


def measure(points: Sequence[Point], directory: Path, say: Callable[[str], None]) -> Minima:
    """The largest eigenvalue of the Hessian at the last weights of each result, and slices of the loss.

    Args:
        directory: of the study.
        say: called with a line before each that is computed.

    Raises:
        InputError: what was kept is damaged.
    """
    book = _Book(directory / KEPT, say)
    found, left_out, ends = list[Minimum](), list[str](), list[tuple[int, Path]]()
    for point in points:
        places = list[Path]()
        for run in point.runs:
            place = directory / "runs" / run.run_dir
            if run.why.startswith(DivergedError.__name__):
                left_out.append(f"{run.run_dir}, which diverged")
                continue
            try:
                found.append(_minimum(book, place, point, run))
                places.append(place)
            except CheckpointError as error:
                left_out.append(f"{run.run_dir}: {error}")
        ends += [(point.batch, place) for place in places[:1]]
    return Minima(tuple(found), tuple(_slices(book, ends)), tuple(left_out))


def _minimum(book: _Book, place: Path, point: Point, run: Run) -> Minimum:
    loaded = find(place)
    key = f"{place.name}@{loaded.checkpoint.step}"
    known = book.get(key, f"sharpness of {place.name}", lambda: asdict(_eigenvalue(_at(place))))
    return Minimum(place.name, point.batch, run.seed, samples_seen(loaded.checkpoint), Eigenvalue(**known))


def _at(place: Path) -> Surface:
    # Its recipe is the one that the study was given, and has been run.
    return surface(place, trust=True)


def _eigenvalue(on: Surface) -> Eigenvalue:
    return largest_eigenvalue(on, method="lanczos" if len(on.zeros()) <= FEW else "power")


def _slices(book: _Book, ends: Sequence[tuple[int, Path]]) -> list[tuple[str, Slice]]:
    """Between the first and the last of ``ends``, and around both."""
    if len(ends) < 2:
        return []
    (small, a), (large, b) = ends[0], ends[-1]
    from_a, from_b = (f"{place.name}@{find(place).checkpoint.step}" for place in (a, b))
    line = book.get(
        f"line {from_a} {from_b}",
        f"the loss between {a.name} and {b.name}",
        lambda: asdict(slice_1d(_at(a), to=b, span=(-1.0, 2.0), points=LINE, trust=True)),
    )
    about = f"from batch {small:,} at 0 to batch {large:,} at 1"
    found = [("line", replace(Slice(**line), about=about))]
    for batch, place, key in ((small, a, from_a), (large, b, from_b)):
        plane = book.get(
            f"plane {key}",
            f"the loss around {place.name}",
            lambda place=place: asdict(slice_2d(_at(place), points=PLANE)),  # type: ignore[misc]
        )
        found.append(
            (f"plane-{batch}", replace(Slice(**plane), about=f"around batch {batch:,}, in two random directions"))
        )
    return found


class _Book:
    """A file that remembers answers by name."""

    def __init__(self, path: Path, say: Callable[[str], None]) -> None:
        self._path, self._say = path, say
        cure = "delete it, and it is computed anew"
        self._known: dict[str, Any] = read_json(path, cure) if path.is_file() else {}

    def get(self, name: str, title: str, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        if name not in self._known:
            self._say(title)
            self._known[name] = compute()
            replace_file(self._path, json.dumps(self._known, indent=1) + "\n")
        found: dict[str, Any] = self._known[name]
        return found
