"""Weights to begin with: from a run or a file, given to a model by name, with a report of what fitted."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from disttrain.checkpoint import Checkpoint
from disttrain.checkpoint.format import MANIFEST
from disttrain.config.sections.fine_tune import StartFrom
from disttrain.errors import CheckpointError, InputError
from disttrain.inference.choice import Choice, Origin, Which, choose
from disttrain.inference.foreign import read_file
from disttrain.inference.weights import stored_weights
from disttrain.names import matching, some


def start_from(model: nn.Module, section: StartFrom) -> dict[str, Any]:
    """Give ``model`` the weights that a recipe's ``start_from`` names. Integers and numbers of another precision become the
    model's.

    Returns:
        The event for the run's log: where they come from, its sha256, and which names were taken, missing (they keep their
        initial values) and left.

    Raises:
        InputError: there are none, they are not those of this model, or not finite; the message names some.
    """
    try:
        stored, digest = _stored(section)
        weights = _renamed(section, stored)
        fit = _fit(section, model, weights)
    except (CheckpointError, InputError, ValueError) as error:
        raise InputError(f"start_from {section.path}: {error}") from None
    model.load_state_dict({name: weights[name] for name in fit["taken"]}, strict=False)
    said = {"missing": "missing, which keep their initial values", "left": "left out"}
    parts = [f"{len(fit[how])} {words}: {some(fit[how])}" for how, words in said.items() if fit[how]]
    message = "; ".join([f"{section.path}: {len(fit['taken'])} tensors taken", *parts])
    return {"event": "start_from", "step": 0, "message": message, "path": section.path, "sha256": digest, **fit}


def fingerprint(section: StartFrom) -> str:
    """The sha256 of the file that ``start_from`` reads, of a run directory's the checkpoint's manifest.

    Raises:
        InputError: there is no such file or run.
    """
    try:
        return _sha256(_of_run(section)[1].path / MANIFEST if Path(section.path).is_dir() else Path(section.path))
    except (CheckpointError, InputError, OSError) as error:
        raise InputError(f"start_from {section.path}: {error}") from None


def _stored(section: StartFrom) -> tuple[dict[str, Tensor], str]:
    """The stored tensors by name, and the sha256 of what they were read from."""
    path = Path(section.path)
    if path.is_dir():
        checkpoint, origin = _of_run(section)
        return stored_weights(checkpoint, averaged=origin.averaged), _sha256(origin.path / MANIFEST)
    if not path.exists():
        raise CheckpointError("there is no such file or run directory")
    if section.which != "newest":
        raise CheckpointError(f"which: {section.which} goes with a run directory, and this is a file")
    return read_file(path), _sha256(path)


def _of_run(section: StartFrom) -> tuple[Checkpoint, Origin]:
    which: Which = "best" if section.which == "best" else "newest"
    return choose(Path(section.path), Choice(which, average=section.which == "average"))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _renamed(section: StartFrom, stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under the names that ``strip`` and ``rename`` make of theirs."""
    names = {name: name for name in stored}
    for rules in ({section.strip: ""} if section.strip else {}, section.rename):
        for old in rules:
            if not any(name.startswith(old) for name in names.values()):
                raise ValueError(f"no tensor's name begins with {old!r}; there are {some(names.values())}")
        for source, name in names.items():
            fitting = [old for old in rules if name.startswith(old)]
            for old in sorted(fitting, key=len)[-1:]:
                names[source] = rules[old] + name.removeprefix(old)
    weights = {name: stored[source] for source, name in names.items()}
    if len(weights) < len(stored):
        raise ValueError("strip and rename give two tensors the same name")
    return weights


def _fit(section: StartFrom, model: nn.Module, weights: dict[str, Tensor]) -> dict[str, list[str]]:
    """Names that are taken, missing and left."""
    mine: dict[str, Tensor] = model.state_dict()
    excluded = set(matching(dict.fromkeys([*mine, *weights]), section.exclude, "tensor"))
    taken = [n for n in mine if n in weights and n not in excluded and weights[n].shape == mine[n].shape]
    shared = {_memory(mine[name]) for name in taken}  # tied tensors are stored under one of their names
    missing = [name for name in mine if name not in taken and _memory(mine[name]) not in shared]
    left = [name for name in weights if name not in taken]
    _check_values(mine, weights, taken)
    wrong = [name for name in missing if name in weights and name not in excluded]
    odd = {
        "missing": [name for name in missing if name not in weights and name not in excluded],
        "unexpected": [name for name in left if name not in mine and name not in excluded],
        "of another shape": [f"{name} {_shape(weights[name])} for {_shape(mine[name])}" for name in wrong],
    }
    if not taken or (section.strict and any(odd.values())):
        found = "; ".join(f"{len(names)} {how}: {some(names)}" for how, names in odd.items() if names)
        hint = "exclude what the file lacks or has besides, or set strict: false to take what fits"
        if not taken:
            hint = "is it the file of another model? strip and rename change the names in it"
        raise ValueError(f"{len(taken)} of the model's {len(mine)} tensors fit; {found} ({hint})")
    return {"taken": taken, "missing": missing, "left": left}


def _check_values(mine: Mapping[str, Tensor], weights: dict[str, Tensor], taken: Iterable[str]) -> None:
    """Bring what is taken into the model's precision, and refuse numbers that are not finite, or that differ where the model
    has one tensor under two names."""
    first: dict[Any, str] = {}
    for name in taken:
        weights[name] = weights[name].to(mine[name].dtype)
        if not bool(weights[name].isfinite().all()):
            raise ValueError(f"{name} has numbers that are not finite in {mine[name].dtype}")
        other = first.setdefault(_memory(mine[name]), name)
        if other != name and not weights[name].equal(weights[other]):
            raise ValueError(f"{other} and {name} are one tensor in this model, and differ there: exclude one of them")


def _memory(tensor: Tensor) -> tuple[int, ...]:
    """The same for two names of one tensor."""
    return (id(tensor),) if not tensor.numel() else (tensor.data_ptr(), *tensor.shape, *tensor.stride())


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"
