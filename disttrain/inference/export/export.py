"""A trained model, taken out: made plain, written, read again, and measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from disttrain.errors import InputError
from disttrain.inference.choice import Origin
from disttrain.inference.evaluate import evaluate
from disttrain.inference.export.calls import record, watching
from disttrain.inference.export.formats import Kind, Pretrained, Program, StateDict, class_of, difference
from disttrain.inference.export.onnx import Onnx
from disttrain.inference.export.quantize import int8_weights
from disttrain.inference.export.target import size_of
from disttrain.inference.prepared import Prepared
from disttrain.inference.replacing import replacing
from disttrain.nn import convert_batch_norm
from disttrain.precision import FP64, Precision
from disttrain.version import __version__

_KINDS: Mapping[str, Kind] = {".safetensors": StateDict(), ".pt2": Program(), ".onnx": Onnx(), "": Pretrained()}
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4}
"""How far outputs of the file may be from the model's, in parts of the largest output: other kernels round otherwise."""


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written.

    Attributes:
        num_bytes: of the file, or of all files in the directory.
        difference: the largest one between outputs of the file and of the model, in parts of the largest output.
        metrics: what the file gives on the test set.
        quantized: in words, what was quantised; None: nothing.
        metrics_before: what the model gave before it was quantised.
    """

    num_bytes: int
    difference: float
    metrics: dict[str, float]
    quantized: str | None
    metrics_before: dict[str, float]


def export(run: Prepared, origin: Origin, path: Path, *, quantize: str | None = None) -> Exported:
    """Write ``run``'s model, which is on the CPU, to ``path``, whose ending says in which form (see
    :func:`disttrain.inference.export.target.check_target`); what is there is replaced, by one rename.

    The file is read again before that: its outputs on samples of the test set have to be the model's up to ``TOLERANCE``,
    and its metrics on the whole test set are returned. All in the dtype of the parameters, without autocast.

    Raises:
        InputError: the model cannot be written so, a package is missing, or the file does not give what the model gives.
    """
    run = _plain(run)
    with watching(run.model) as seen:
        before = evaluate(run)
    calls = record(run, seen)
    quantized = int8_weights(run.model) if quantize == "int8" else None
    measured = before if quantized is None else evaluate(run)
    kind = _KINDS[path.suffix]
    notes = _notes(run, origin, measured) | (
        {"quantized": quantized, "metrics_before": before} if quantized is not None else {}
    )
    expected = [call.of(run.model) for call in calls]
    with replacing(path) as temporary:
        kind.write(run.model, calls, notes, temporary)
        loaded = kind.read(run.model, temporary)
        largest = max(difference(a, call.of(loaded)) for a, call in zip(expected, calls, strict=True))
        allowed = TOLERANCE[run.precision.parameter_dtype]
        if not largest <= allowed:
            raise InputError(
                f"{path.suffix} is no form for this model: what was written differs from it by {largest:.1e} of its largest "
                f"output, and {allowed:.0e} is allowed"
            )
        found = _measure(replace(run, model=loaded))
        size = size_of(temporary)
    return Exported(size, largest, found, quantized, before)


def _plain(run: Prepared) -> Prepared:
    """The model as plain torch has it: torch's batch norm for ghosts, evaluation mode, no autocast."""
    device = run.engine.world.device
    precision = FP64(device) if run.precision.parameter_dtype == torch.float64 else Precision(device)
    precision.activate()
    model = convert_batch_norm(run.model).eval().requires_grad_(False)
    return replace(run, model=model, precision=precision)


def _measure(run: Prepared) -> dict[str, float]:
    try:
        return evaluate(run)
    except AttributeError as error:
        raise InputError(
            f"task {run.recipe.task.name}: its evaluate() uses more of the model than its call ({error}), and a program is "
            "only that; .safetensors takes the weights"
        ) from error


def _notes(run: Prepared, origin: Origin, metrics: Mapping[str, float]) -> dict[str, Any]:
    recipe = run.recipe
    section = None if recipe.model is None else recipe.model.model_dump(exclude_none=True)
    return {
        "disttrain": __version__,
        "recipe": recipe.name,
        "task": recipe.task.name,
        "model": section or {"name": run.task.default_model[0], **run.task.default_model[1]},
        "class": class_of(run.model),
        "step": origin.step,
        "weights": origin.about()["weights"],
        "trained_in": recipe.precision,
        "metrics": dict(metrics),
    }
