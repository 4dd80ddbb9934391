"""What is done to gradients between backward and optimizer, and what they tell. Needs torch and nothing else of
disttrain."""

from disttrain.grads import (
    balance,
    clipping,
    noise,
    noise_exact,
    noise_interval,
    noise_scale,
    noise_sentence,
    norm_layers,
    patterns,
    penalties,
    squares,
)
from disttrain.grads.balance import *
from disttrain.grads.clipping import *
from disttrain.grads.noise import *
from disttrain.grads.noise_exact import *
from disttrain.grads.noise_interval import *
from disttrain.grads.noise_scale import *
from disttrain.grads.noise_sentence import *
from disttrain.grads.norm_layers import *
from disttrain.grads.numerics import LayerNumbers, Numerics, numerics
from disttrain.grads.patterns import *
from disttrain.grads.penalties import *
from disttrain.grads.squares import *

__all__ = ["LayerNumbers", "Numerics", "numerics"]
__all__ += balance.__all__
__all__ += clipping.__all__
__all__ += noise.__all__
__all__ += noise_exact.__all__
__all__ += noise_interval.__all__
__all__ += noise_scale.__all__
__all__ += noise_sentence.__all__
__all__ += norm_layers.__all__
__all__ += patterns.__all__
__all__ += penalties.__all__
__all__ += squares.__all__
