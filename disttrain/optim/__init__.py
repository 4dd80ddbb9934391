"""Optimizers and parameter groups. Needs torch and nothing else of disttrain."""

from disttrain.optim.groups import EXCLUSIONS, bias_and_norm, nothing, param_groups

__all__ = ["EXCLUSIONS", "bias_and_norm", "nothing", "param_groups"]
