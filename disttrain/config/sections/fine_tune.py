"""What fine-tuning adds to a recipe: where the weights come from, which of them are trained, and in which stages."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, GetJsonSchemaHandler
from pydantic_core import CoreSchema

from disttrain.config.sections.base import UNITS, Epochs, Length, Section, Total


def _some(patterns: list[str]) -> list[str]:
    if not patterns:
        raise ValueError("expected at least one pattern; an empty list matches nothing")
    return patterns


Pattern = Annotated[str, Field(min_length=1)]
Patterns = Annotated[list[Pattern], AfterValidator(_some)]


class StartFrom(Section):
    """Whose weights to begin with. All else begins anew."""

    path: Annotated[str, Field(min_length=1)] = Field(
        description="A run directory, a .safetensors file, or a .pt, .pth or .bin file with a state dict (read without pickle).",
        examples=["pretrained.safetensors"],
    )
    which: Literal["newest", "best", "average"] = Field(
        "newest",
        description="Of a run directory: its newest checkpoint, its best one, or the newest's averaged weights.",
    )
    strip: str = Field(
        "", description="Taken off the front of the stored names that begin with it.", examples=["module."]
    )
    rename: dict[str, str] = Field(
        default_factory=dict,
        description='Then, beginnings of stored names and what takes their place; "" begins every name.',
        examples=[{"": "vit."}],
    )
    exclude: list[Pattern] = Field(
        default_factory=list,
        description="Names (after strip and rename) that are left out and keep their initial values, such as a new head's.",
        examples=[["classifier.*"]],
    )
    strict: bool = Field(
        True,
        description="true: every other name and shape has to fit; false: what fits is taken, and the rest is reported.",
    )


class Stage(Section):
    """A part of the run that trains some of the parameters."""

    epochs: Epochs | None = Field(None, description="Length of the stage, in passes over the train set.", examples=[2])
    samples: Total | None = Field(None, description="Length of the stage, in samples seen.", examples=[120000])
    updates: Total | None = Field(None, description="Length of the stage, in optimizer updates.", examples=[500])
    trainable: Patterns | None = Field(
        None,
        description="Parameters that are trained in it, by name; null: as the recipe's trainable says.",
        examples=[["classifier.*"]],
    )
    lr_factor: Annotated[float, Field(gt=0.0)] = Field(
        1.0, description="What the schedule's learning rate is times.", examples=[0.1]
    )
    warmup: Length | None = Field(
        None, description="How long the rate rises to that from 0, along a straight line, from the stage's beginning."
    )
    optimizer: Literal["keep", "drop"] = Field(
        "keep", description="The optimizer's state of parameters that were trained in the stage before."
    )


def checked_stages(stages: list[Stage], lr_scaling: str) -> list[Stage]:
    """All stages but the last have a length, in one unit.

    Raises:
        ValueError: naming the stage; or the learning rate is scaled by a rule that counts otherwise.
    """
    for i, stage in enumerate(stages):
        given = [unit for unit in UNITS if getattr(stage, unit) is not None]
        if i == len(stages) - 1 and given:
            raise ValueError(f"stage {i + 1} is the last, which lasts to the end of the run: leave out {given[0]}")
        if i < len(stages) - 1 and len(given) != 1:
            found = " and ".join(given) or "none"
            raise ValueError(f"stage {i + 1} needs a length: exactly one of {', '.join(UNITS)}; got {found}")
    if stages and stages[0].optimizer == "drop":
        raise ValueError("stage 1 has no earlier state of the optimizer to drop")
    if stages and lr_scaling == "adascale":
        raise ValueError("stages count samples, and lr_scaling: adascale counts others; leave one of them out")
    return stages


def _from_text(given: Any) -> Any:
    return {"path": given} if isinstance(given, str) else given


class _OrText:
    """In the schema, a path alone may stand in the place of the section."""

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"anyOf": [{"type": "string", "minLength": 1}, handler(core)]}


Start = Annotated[StartFrom, BeforeValidator(_from_text), _OrText]
