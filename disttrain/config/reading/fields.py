"""Walks the recipe's section classes: which keys there are, and which field a path leads to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from disttrain.config.reading.problems import Path
from disttrain.config.sections.base import SELECTORS, Expected
from disttrain.config.sections.recipe import Recipe

Model = type[BaseModel]


def fields(model: Model) -> dict[str, FieldInfo]:
    """The fields of a section, by the key written in a recipe."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def selector(candidates: list[Model]) -> str:
    """The key that decides between several section classes."""
    return next(key for key in SELECTORS if key in candidates[0].model_fields)


def names(candidates: list[Model]) -> list[str]:
    """What the selector may be, the user's own objects included."""
    key = selector(candidates)
    found: list[str] = []
    for model in candidates:
        field = model.model_fields[key]
        found += get_args(field.annotation) or [m.text for m in field.metadata if isinstance(m, Expected)]
    return found


def chosen(candidates: list[Model], data: Any) -> Model | None:
    """The section class that ``data`` selects by its name or kind."""
    if len(candidates) == 1:
        return candidates[0]
    key = selector(candidates) if candidates else ""
    wanted = data.get(key) if isinstance(data, dict) else None
    for model in candidates:
        literals = get_args(model.model_fields[key].annotation)
        if isinstance(wanted, str) and (wanted in literals if literals else ":" in wanted):
            return model
    return None


def every_key(data: Any, model: Model = Recipe, prefix: str = "") -> Iterator[str]:
    """All dotted keys a recipe can have: in the sections that ``data`` selects, or in all where it selects none."""
    for key, field in fields(model).items():
        yield prefix + key
        inner = data.get(key) if isinstance(data, dict) else None
        candidates = models(field.annotation)
        selected = chosen(candidates, inner)
        for section in [selected] if selected is not None else candidates:
            yield from every_key(inner, section, f"{prefix}{key}.")


@dataclass(frozen=True, slots=True)
class Located:
    """Where one of pydantic's errors is.

    Attributes:
        path: as a person writes it.
        annotation: type of what stands there, with ``metadata`` as its bounds; None in the user's own arguments.
        owner: the section class it belongs to, with ``siblings`` the classes that could stand in its place.
    """

    path: Path
    annotation: Any
    metadata: tuple[Any, ...]
    owner: Model | None
    siblings: list[Model]


def locate(loc: tuple[str | int, ...], data: Any) -> Located:
    """Follow pydantic's path, which also names the chosen member of each union: a person does not write that."""
    path: list[str | int] = []
    annotation: Any = Recipe
    metadata: tuple[Any, ...] = ()
    inside: list[Model] = [Recipe]
    siblings, owner = inside, None
    parts = iter(loc)
    for part in parts:
        path.append(part)
        if isinstance(part, int):
            annotation, metadata = _item(annotation, part), ()
            continue
        siblings, owner = inside, chosen(inside, data)
        field = fields(owner).get(part) if owner is not None else None
        annotation, metadata = (field.annotation, tuple(field.metadata)) if field is not None else (None, ())
        inside = models(field.annotation) if field is not None else []
        data = data.get(part) if isinstance(data, dict) else None
        if len(inside) > 1 or get_origin(unwrap(annotation)[0]) in (Union, UnionType):
            next(parts, None)
    return Located(tuple(path), annotation, metadata, owner, siblings)


def unwrap(annotation: Any, metadata: tuple[Any, ...] = ()) -> tuple[Any, tuple[Any, ...], bool]:
    """A type without ``None`` and ``Annotated``, the metadata that stood in them, and whether null is allowed."""
    optional = False
    while True:
        members = [member for member in get_args(annotation) if member is not NoneType]
        if get_origin(annotation) in (Union, UnionType) and len(members) == 1:
            annotation, optional = members[0], True
        elif get_origin(annotation) is Annotated:
            annotation, *more = get_args(annotation)
            metadata = (*metadata, *more)
        else:
            return annotation, _flat(metadata), optional


def _flat(metadata: tuple[Any, ...]) -> tuple[Any, ...]:
    flat: list[Any] = []
    for mark in metadata:
        flat += _flat(tuple(mark.metadata)) if isinstance(mark, FieldInfo) else [mark]
    return tuple(flat)


def models(annotation: Any) -> list[Model]:
    """All section classes in a type."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in models(argument)]


def _item(annotation: Any, index: int) -> Any:
    inner, _, _ = unwrap(annotation)
    if get_origin(inner) not in (list, tuple):
        return None
    items = get_args(inner)
    return items[min(index, len(items) - 1)]
