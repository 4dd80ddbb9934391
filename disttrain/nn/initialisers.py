"""Initialisers by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor, nn

INITIALISERS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "xavier": nn.init.xavier_normal_,
    "he": lambda weight: nn.init.kaiming_normal_(weight, mode="fan_out", nonlinearity="relu"),
    "orthogonal": nn.init.orthogonal_,
}

_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


def initialise(model: nn.Module, name: str) -> nn.Module:
    """Initialise the weights of all linear layers and convolutions, and zero their biases; nothing else is touched.

    - ``xavier``: ``N(0, 2 / (fan_in + fan_out))`` (Glorot and Bengio 2010);
    - ``he``: ``N(0, 2 / fan_out)`` (He et al. 2015, arXiv:1502.01852, eq. 14), as ResNets use it;
    - ``orthogonal``: orthonormal rows or columns (Saxe et al. 2014, arXiv:1312.6120).

    Raises:
        ValueError: another name.
    """
    if name not in INITIALISERS:
        raise ValueError(f"initialiser {name!r}: expected one of {', '.join(INITIALISERS)}")
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.modules.conv._ConvNd)):
            INITIALISERS[name](module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return model


def zero_last_gamma(branches: list[nn.Module]) -> None:
    """Zero the scale of the last normalisation in each residual branch, so that every block begins as the identity
    (Goyal et al. 2017, arXiv:1706.02677, section 5.1).

    Raises:
        ValueError: a branch has no normalisation with a scale.
    """
    for branch in branches:
        norms = [m for m in branch.modules() if isinstance(m, _NORMS)]
        weight = getattr(norms[-1], "weight", None) if norms else None
        if weight is None:
            raise ValueError(f"{type(branch).__name__} has no normalisation with a scale to set to zero")
        nn.init.zeros_(weight)
