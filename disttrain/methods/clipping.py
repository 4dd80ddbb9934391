"""Clipping of the mean gradient, and the norm that every training line shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor, nn

from disttrain import grads
from disttrain.config.sections.methods import Gradient

Params = Sequence[nn.Parameter]
Clip = Callable[[Params], Tensor]
"""Clips gradients in place and returns their global 2-norm before that."""

_CLIPS: Mapping[str, Callable[[Params, float], Tensor]] = {
    "clip_norm": grads.clip_norm,
    "clip_value": grads.clip_value,
    "clip_layer_norm": grads.clip_per_layer,
    "clip_adaptive": grads.clip_adaptive,
}


def make_clip(gradient: Gradient) -> Clip:
    """The one clip that the section ``gradient`` asks for; without any, the norm alone."""
    for name, clip in _CLIPS.items():
        most = getattr(gradient, name)
        if most is not None:
            return lambda params, clip=clip, most=most: clip(params, most)  # type: ignore[misc]
    return grads.global_norm
