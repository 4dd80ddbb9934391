"""What all sections of a recipe have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from pydantic_core import PydanticCustomError

UNITS = ("epochs", "samples", "updates")
ALTERNATIVES = (UNITS, ("global", "per_rank"))
"""Keys of which a section has exactly one."""
CUSTOM = "pkg.mod:Object"
"""Tag of sections that name an object of the user's; the colon keeps it apart from every built-in name."""
PASSED = "python:"
"""Begins the name of an object that was passed in Python: no module is meant, and nothing can be imported by it."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What a field accepts, in words; for fields whose type says too little. Stands in the annotation."""

    text: str


Positive = Annotated[int, Field(gt=0, le=10**9)]


def _or_auto(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
    """One mistake in place of one for each member of the union."""
    try:
        return check(value)
    except ValidationError:
        raise PydanticCustomError("auto_or_count", "neither a count nor auto") from None


AutoOrCount = Annotated[
    Positive | Literal["auto"], WrapValidator(_or_auto), Expected("auto or a whole number from 1 to 1000000000")
]
# Up to here floats, in which schedules compute, still hold every whole number.
Total = Annotated[int, Field(gt=0, le=10**15)]
Epochs = Annotated[float, Field(gt=0.0, le=10**9)]
Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
Importable = Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$"), Expected("pkg.mod:Object")]


SELECTORS = ("kind", "name", "policy")
"""Keys that select a section among others."""


def describe_selector(schema: dict[str, Any], section: type[BaseModel]) -> None:
    """In a JSON Schema, the key that selects a section is described by the section itself."""
    for key in SELECTORS:
        if "description" not in (found := schema.get("properties", {}).get(key, {"description": ""})):
            found["description"] = (section.__doc__ or "").split("\n")[0]


class Section(BaseModel):
    """Strict (no string becomes a number, no ``true`` an integer), finite, and without unknown keys; also what is assigned."""

    objects: ClassVar[tuple[str, ...]] = ()
    """Fields that name somebody's code; found beside results, they are used only with consent."""

    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        validate_assignment=True,
        allow_inf_nan=False,
        validate_default=False,
        json_schema_extra=describe_selector,
    )


class Open(BaseModel):
    """A section whose further keys, plain data, are arguments of the user's own class or function."""

    model_config = ConfigDict(
        strict=True, extra="allow", validate_assignment=True, allow_inf_nan=False, json_schema_extra=describe_selector
    )

    __pydantic_extra__: dict[str, JsonValue]


def exactly_one(*names: str) -> BeforeValidator:
    """Marks the last of the fields ``names``, declared in this order: exactly one of them must not be null.

    The mark needs ``validate_default=True``. It stands on a field because a validator of the whole section would not run
    while anything else in the section is wrong, and a recipe's mistakes are to be reported all at once.
    """
    *earlier, last = names

    def check(value: Any, info: ValidationInfo) -> Any:
        # A field with a mistake of its own is absent from the data; it was given all the same.
        given = [name for name in earlier if info.data.get(name, ...) is not None]
        given += [last] if value is not None else []
        if len(given) == 1:
            return value
        shown = [name.rstrip("_") for name in names]
        found = [name.rstrip("_") for name in given]
        raise PydanticCustomError(
            "exactly_one",
            "expected exactly one of {allowed}; got {found}",
            {
                "allowed": ", ".join(shown),
                "found": " and ".join(found) or "none",
                "names": shown,
                "extra": found[-1:],
            },
        )

    return BeforeValidator(check)


class Length(Section):
    """A length in exactly one of three units."""

    epochs: Epochs | None = Field(None, description="In passes over the train set.", examples=[3])
    samples: Total | None = Field(None, description="In samples seen.", examples=[180000])
    updates: Annotated[Total | None, exactly_one(*UNITS)] = Field(
        None, validate_default=True, description="In optimizer updates.", examples=[1000]
    )


def by_name(value: Any) -> str | None:
    """The tag of a task, model or optimizer section: its name, or ``CUSTOM`` for an object of the user's."""
    name = value.get("name") if isinstance(value, dict) else getattr(value, "name", None)
    if not isinstance(name, str):
        return None
    return CUSTOM if ":" in name else name


def by_kind(value: Any) -> str | None:
    """The tag of a section that has a kind."""
    kind = value.get("kind") if isinstance(value, dict) else getattr(value, "kind", None)
    return kind if isinstance(kind, str) else None


def pair(value: Any) -> Any:
    """A YAML list where a tuple is meant."""
    return tuple(value) if isinstance(value, list) else value
