"""Optimizers, parameter groups and averages of weights. Needs torch and nothing else of disttrain."""

from disttrain.optim.averaging import EMA, SWA, WeightAverage
from disttrain.optim.batch_invariant_adam import BatchInvariantAdam
from disttrain.optim.depth import layer_depths
from disttrain.optim.groups import EXCLUSIONS, bare_groups, bias_and_norm, nothing, param_groups
from disttrain.optim.lamb import LAMB
from disttrain.optim.larc import LARC
from disttrain.optim.lars import LARS
from disttrain.optim.layerwise import layer_ratios
from disttrain.optim.matrices import hidden_matrices
from disttrain.optim.muon import Muon
from disttrain.optim.novograd import NovoGrad

__all__ = [
    "EMA",
    "EXCLUSIONS",
    "LAMB",
    "LARC",
    "LARS",
    "SWA",
    "BatchInvariantAdam",
    "Muon",
    "NovoGrad",
    "WeightAverage",
    "bare_groups",
    "bias_and_norm",
    "hidden_matrices",
    "layer_depths",
    "layer_ratios",
    "nothing",
    "param_groups",
]
