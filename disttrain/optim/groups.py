"""Groups of parameters: which are decayed is decided by shape and by the module that owns them, never by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

Exclusion = Callable[[nn.Module, nn.Parameter], bool]
"""Whether a parameter, owned by this module, is left out of weight decay."""

Settings = Callable[[nn.Parameter], Mapping[str, float]]
"""Settings of one parameter's group."""

_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm, nn.LocalResponseNorm)


def bias_and_norm(module: nn.Module, parameter: nn.Parameter) -> bool:
    """Vectors and scalars (biases, scales, shifts), and whatever a normalisation layer owns, of any shape (Goyal et
    al. 2017, arXiv:1706.02677, section 5.3, leave batch norm's out)."""
    return parameter.ndim <= 1 or isinstance(module, _NORMS)


def nothing(module: nn.Module, parameter: nn.Parameter) -> bool:
    """Everything is decayed."""
    return False


EXCLUSIONS: Mapping[str, Exclusion] = {"bias_and_norm": bias_and_norm, "none": nothing}


def param_groups(
    model: nn.Module,
    *,
    weight_decay: float | None = None,
    exclude: Exclusion = bias_and_norm,
    exclude_adaptation: Exclusion | None = None,
    settings: Settings | None = None,
) -> list[dict[str, Any]]:
    """Groups for an optimizer: what is decayed as the optimizer says and what is not, what gets a trust ratio and
    what does not.

    Parameters that need no gradient are left out, shared ones appear once, and groups without parameters not at all.

    Args:
        model: whose parameters are grouped, in their order in the model.
        weight_decay: of what is decayed; None: the optimizer's default.
        exclude: which parameters are not decayed.
        exclude_adaptation: which parameters get ``adapt: False``, no trust ratio, from this package's optimizers;
            None: groups without that key, for torch's.
        settings: further keys of a parameter's group, such as ``lr_factor``; a ``weight_decay`` among them takes the place of
            everything said above. None: no others.

    Raises:
        TypeError: ``model`` is not a module; parameters alone do not say what owns them.

    Examples:
        >>> model = nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3))
        >>> [(len(group["params"]), group.get("weight_decay")) for group in param_groups(model)]
        [(1, None), (3, 0.0)]
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"expected the model, whose modules decide what is excluded, and got a {type(model).__name__}")
    groups: dict[tuple[bool, bool, tuple[tuple[str, float], ...]], list[nn.Parameter]] = {}
    seen: set[nn.Parameter] = set()
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            if parameter.requires_grad and parameter not in seen:
                seen.add(parameter)
                spared = exclude_adaptation is not None and exclude_adaptation(module, parameter)
                own = () if settings is None else tuple(sorted(settings(parameter).items()))
                groups.setdefault((exclude(module, parameter), spared, own), []).append(parameter)
    found: list[dict[str, Any]] = []
    for undecayed, spared, own in sorted(groups):
        group: dict[str, Any] = {"params": groups[undecayed, spared, own]}
        if undecayed:
            group["weight_decay"] = 0.0
        elif weight_decay is not None:
            group["weight_decay"] = weight_decay
        if exclude_adaptation is not None:
            group["adapt"] = not spared
        found.append({**group, **dict(own)})
    return found


def bare_groups(params: Any) -> list[dict[str, Any]]:
    """Groups in which biases and normalisation have neither weight decay nor trust ratio, as MLPerf's references have them.

    Args:
        params: a model, whose modules decide; groups, which are taken as they are; or parameters, of which vectors and scalars
            count as biases and normalisation.
    """
    if isinstance(params, nn.Module):
        return param_groups(params, exclude_adaptation=bias_and_norm)
    given = list(params)
    if any(isinstance(item, dict) for item in given):
        return given
    decayed = {"params": [p for p in given if p.ndim > 1]}
    others = {"params": [p for p in given if p.ndim <= 1], "weight_decay": 0.0}
    return [group for group in (decayed, others) if group["params"]]
