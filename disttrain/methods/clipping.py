"""Clipping of the mean gradient, and the norm that every training line shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from torch import Tensor, nn

from disttrain import grads
from disttrain.config.sections.methods import Gradient

Params = Sequence[nn.Parameter]
Clip = Callable[[Params], Tensor]
"""Clips gradients in place and returns their global 2-norm before that."""

_CLIPS: Mapping[str, Callable[[Params, float, float], Tensor]] = {
    "clip_norm": grads.clip_norm,
    "clip_value": lambda params, most, p: grads.clip_value(params, most),
    "clip_layer_norm": grads.clip_per_layer,
    "clip_adaptive": lambda params, most, p: grads.clip_adaptive(params, most),
}


def make_clip(gradient: Gradient) -> Clip:
    """The one clip that the section ``gradient`` asks for; without any, the norm alone."""
    for name, clip in _CLIPS.items():
        most = getattr(gradient, name)
        if most is not None:
            return partial(_call, clip, most, float(gradient.norm_type))
    return grads.global_norm


def _call(clip: Callable[[Params, float, float], Tensor], most: float, p: float, params: Params) -> Tensor:
    return clip(params, most, p)
