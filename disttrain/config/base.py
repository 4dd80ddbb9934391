"""What all sections of a recipe have in common."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Positive = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]


class Section(BaseModel):
    """Frozen, strict (no string becomes a number, no ``true`` an integer), finite, and without unknown keys."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False, validate_default=False)


class Open(BaseModel):
    """A section whose further keys are arguments of the user's own class or function."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True, allow_inf_nan=False)


class Length(Section):
    """A length in exactly one of three units."""

    epochs: Annotated[float, Field(gt=0)] | None = Field(None, description="In passes over the train set.")
    samples: Positive | None = Field(None, description="In samples seen.")
    updates: Positive | None = Field(None, description="In optimizer updates.")

    @model_validator(mode="after")
    def _one_unit(self) -> Self:
        exactly_one(self, "epochs", "samples", "updates")
        return self


def exactly_one(section: BaseModel, *names: str) -> None:
    """Raise unless exactly one of the fields is not null."""
    given = [name for name in names if getattr(section, name) is not None]
    if len(given) != 1:
        shown = [_alias(section, name) for name in names]
        found = " and ".join(_alias(section, name) for name in given) or "none"
        raise ValueError(f"expected exactly one of {', '.join(shown)}; got {found}")


def _alias(section: BaseModel, name: str) -> str:
    return type(section).model_fields[name].alias or name


def by_name(value: Any) -> str | None:
    """The tag of a task, model or optimizer section: its name, or ``custom`` for ``pkg.mod:Object``."""
    name = value.get("name") if isinstance(value, dict) else getattr(value, "name", None)
    if not isinstance(name, str):
        return None
    return "custom" if ":" in name else name
