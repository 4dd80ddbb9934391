"""``optimizer.carry``: which parts of an optimizer ``lr_scaling: carry`` carries from the reference batch to another one."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from disttrain.config.sections.base import Positive, Section, Total

_SIGNS = "the law with a peak at the noise scale is that of SGD, AdamW and RMSprop"
_DURATION = "how the rate follows the length of a run is known for AdamW"
LEFT: dict[str, dict[str, str]] = {
    "sgd": {"eps": "it has none", "reference_samples": _DURATION},
    "adamw": {},
    "rmsprop": {
        "weight_decay": "it is a part of the gradient, divided like the rest of it, and stays as it is",
        "reference_samples": _DURATION,
    },
    "lamb": {
        "weight_decay": "the trust ratio sets the size of a whole update, decay included, so it has no time scale of its own",
        "noise_batch": _SIGNS,
        "reference_samples": _DURATION,
    },
    "novograd": {"noise_batch": _SIGNS, "reference_samples": _DURATION},
    "muon": {"noise_batch": _SIGNS, "reference_samples": _DURATION},
    "batch_invariant_adam": {
        "eps": "what it stands beside is the gradient of a slice, which does not follow the batch",
        "noise_batch": _SIGNS,
        "reference_samples": _DURATION,
    },
}
"""Of each optimizer that can be carried: what stays as it is, and why."""


class Carry(Section):
    """The parts of ``lr_scaling: carry``; null: carried where there is a law for this optimizer, which ``show`` tells."""

    rate: bool = Field(
        True, description="The learning rate, by the stochastic differential equation: SGD k, others sqrt(k)."
    )
    momentum: bool = Field(
        True, description="momentum and the first of betas, by the half-life in samples: beta to the power of k."
    )
    second_moment: bool = Field(True, description="alpha and the second of betas, likewise.")
    eps: bool | None = Field(None, description="Divided by sqrt(k), as the noise beside it is.", examples=[False])
    weight_decay: bool | None = Field(
        None,
        description="So that the weights forget over the same number of samples (AdamW's time scale).",
        examples=[False],
    )
    noise_batch: Positive | None = Field(
        None,
        description="The noise scale of a measured run: the rate rises more slowly towards it, and Adam's falls beyond; "
        "null: the rate rises without end.",
        examples=[900],
    )
    reference_samples: Total | None = Field(
        None,
        description="Length of the run that lr is meant for; null: of this one.",
        examples=[60000],
    )


def checked(section: Any) -> None:
    """What ``carry`` says fits the optimizer.

    Raises:
        ValueError: naming the key and the reason.
    """
    carry = section.carry
    if carry is not None and section.lr_scaling != "carry":
        raise ValueError(f"carry goes with lr_scaling: carry, and lr_scaling is {section.lr_scaling}")
    if section.lr_scaling == "carry" and getattr(section, "larc", None) is not None:
        raise ValueError("lr_scaling: carry knows no law for larc's rates; leave one of them out")
    for key, why in LEFT[section.name].items() if carry is not None else ():
        if getattr(carry, key) not in (None, False):
            raise ValueError(f"carry.{key} does not go with {section.name}: {why}")
