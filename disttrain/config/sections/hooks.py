"""What a run tells, and who watches it: lines, sinks and callbacks."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from disttrain.config.sections.base import Expected, Importable, Open, Positive, Section

OBJECT = r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*"


class SinkEntry(Open):
    """Where records go besides metrics.jsonl and the terminal: a name, or a section whose further keys are arguments: of
    ``wandb.init``, of the MLflow sink (``tracking_uri``, ``experiment``, ``run_name``), or of a class of your own."""

    name: Annotated[
        str,
        Field(pattern=rf"^(tensorboard|wandb|mlflow|{OBJECT})$"),
        Expected("tensorboard, wandb, mlflow or pkg.mod:Sink"),
    ] = Field(description="tensorboard, wandb, mlflow, or pkg.mod:Sink for a class of your own.", examples=["wandb"])

    def __str__(self) -> str:
        return self.name


class CallbackEntry(Open):
    """An object whose methods are called while training; further keys are arguments of the class."""

    name: Importable = Field(description="pkg.mod:Class.", examples=["my_package.watch:MyCallback"])

    def __str__(self) -> str:
        return self.name


def _named(value: Any) -> Any:
    """An entry that is only a name."""
    return {"name": value} if isinstance(value, str) else value


Sink = Annotated[SinkEntry, BeforeValidator(_named, json_schema_input_type=str | SinkEntry)]
Callback = Annotated[CallbackEntry, BeforeValidator(_named, json_schema_input_type=str | CallbackEntry)]


class Log(Section):
    every_steps: Positive = Field(50, description="In updates; a line is written while the next update is computed.")
    sinks: Annotated[list[Sink], Expected("a list of sinks: tensorboard, wandb, mlflow, pkg.mod:Sink")] = Field(
        default_factory=lambda: [SinkEntry(name="tensorboard")],
        description="Besides metrics.jsonl and the terminal: tensorboard, wandb, mlflow, pkg.mod:Sink, or a section with a "
        "name and its arguments.",
        examples=[["tensorboard", "wandb"]],
    )
    sample_ids: bool = Field(False, description="Write the ids of every update's samples to metrics.jsonl.")
    layer_ratios: bool = Field(False, description="Write each layer's trust and update-to-weight ratio; lars, lamb.")

    @model_validator(mode="before")
    @classmethod
    def _before_sinks(cls, given: Any) -> Any:
        """``tensorboard: true`` or ``false``, as the key was called in earlier recipes. It may come from a command line, over a
        stored recipe that has ``sinks``: then it adds that sink or takes it away."""
        if not isinstance(given, dict) or not isinstance(given.get("tensorboard"), bool):
            return given
        kept = {key: value for key, value in given.items() if key != "tensorboard"}
        sinks = kept.get("sinks", [])
        if not isinstance(sinks, list):
            return kept
        wanted = ["tensorboard"] if given["tensorboard"] else []
        return {**kept, "sinks": wanted + [sink for sink in sinks if _named(sink) != {"name": "tensorboard"}]}
