"""What is done to gradients between backward and optimizer, and what they tell. Needs torch and nothing else of
disttrain."""

from disttrain.grads.balance import GradNormWeights, UncertaintyWeights
from disttrain.grads.clipping import (
    clip_adaptive,
    clip_norm,
    clip_per_layer,
    clip_value,
    global_norm,
    gradients,
    per_layer_norms,
)
from disttrain.grads.noise import add_noise_, annealed_variance, noise_variance, sample_weights
from disttrain.grads.noise_scale import NoiseScale, cost_of, efficiency, noise_scale_moments
from disttrain.grads.numerics import LayerNumbers, Numerics, numerics
from disttrain.grads.penalties import add_l1_, add_l2_, penalty, select

__all__ = [
    "GradNormWeights",
    "LayerNumbers",
    "NoiseScale",
    "Numerics",
    "UncertaintyWeights",
    "add_l1_",
    "add_l2_",
    "add_noise_",
    "annealed_variance",
    "clip_adaptive",
    "clip_norm",
    "clip_per_layer",
    "clip_value",
    "cost_of",
    "efficiency",
    "global_norm",
    "gradients",
    "noise_scale_moments",
    "noise_variance",
    "numerics",
    "penalty",
    "per_layer_norms",
    "sample_weights",
    "select",
]
