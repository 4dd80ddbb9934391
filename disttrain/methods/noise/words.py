"""What measured noise scales say: in training lines, for programs, and in sentences."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from disttrain.config import Recipe
from disttrain.grads import NoiseScale, noise_words
from disttrain.plan.noise import guide_only

PROXY = "noise scale norm layers (a proxy)"


def line(recipe: Recipe, estimates: Mapping[str, NoiseScale], passed_over: int) -> dict[str, Any]:
    """``noise_scale``, ``noise_scale_low`` and ``_high`` (95 %), in samples, and ``noise_scale/NAME...`` of groups; of the norm
    layers ``noise_scale_norm_layers...`` instead. Where one is None, ``..._reason`` says why.

    Args:
        estimates: by the name of the group, that of all parameters empty.
        passed_over: measured updates that were not finite.
    """
    record: dict[str, Any] = {}
    for name, scale in estimates.items():
        key, found = _key(recipe, name), scale.estimate()
        high = found.high if math.isfinite(found.high) else None
        record |= {key: found.value, f"{key}_low": found.low, f"{key}_high": high}
        if found.reason:
            record[f"{key}_reason"] = found.reason
    if passed_over:
        record[f"{_key(recipe, '')}_passed_over"] = passed_over
    return record


def sentences(
    recipe: Recipe, estimates: Mapping[str, NoiseScale], *, batch: int, population: int | None, passed_over: int
) -> dict[str, str]:
    """A sentence on each estimate, by the key that :func:`line` has for it.

    Args:
        batch: samples of the batch that is trained with.
        population: see :func:`disttrain.grads.noise_words`.
    """
    found = {}
    for name, scale in estimates.items():
        what = (PROXY if _proxy(recipe) else "noise scale") + (f" of {name}" if name else "")
        estimate = scale.estimate()
        over = f"; averaged over the last {estimate.readings:,} readings" if estimate.low > 0.0 else ""
        found[_key(recipe, name)] = noise_words(estimate, batch, population, name=what) + over
    if passed_over:
        words = "was not finite and is" if passed_over == 1 else "were not finite and are"
        found[_key(recipe, "")] += f" ({passed_over} of the readings {words} left out)"
    return found


def notes(recipe: Recipe) -> dict[str, str]:
    """What is to be said once, by a key for the summary."""
    note = guide_only(recipe)
    return {"noise_scale_note": f"a guide only: {note}"} if note else {}


def _key(recipe: Recipe, name: str) -> str:
    return ("noise_scale_norm_layers" if _proxy(recipe) else "noise_scale") + (f"/{name}" if name else "")


def _proxy(recipe: Recipe) -> bool:
    return recipe.noise_scale is not None and recipe.noise_scale.estimator == "norm_layers"
