"""Which weights of a model are matrices in the middle of it, for optimizers that treat a weight as one map."""

from __future__ import annotations

from torch import Tensor, nn

from disttrain.optim.depth import layer_depths

_TABLES = (nn.Embedding, nn.EmbeddingBag)
"""Their rows are looked up one by one: they are lists of vectors, and no maps."""


def is_matrix(weight: Tensor) -> bool:
    """Whether it has at least two rows and two columns, with all dimensions but the first taken together: a convolution's
    kernels ``(out, in, height, width)`` are ``(out, in * height * width)``."""
    return weight.ndim >= 2 and 1 < len(weight) < weight.numel()


def hidden_matrices(model: nn.Module) -> frozenset[nn.Parameter]:
    """The matrices that are neither embeddings nor the head: what Muon orthogonalises (Liu et al. 2025, arXiv:2502.16982).

    Left out are parameters that :func:`is_matrix` is not true of; those that some ``nn.Embedding`` owns, which a head may share;
    parameters of a module that has children, such as positions or a class token (but not ``nn.MultiheadAttention``'s); and the
    head: the last weight of what comes after the model's blocks (:func:`disttrain.optim.layer_depths`), or of the whole
    model where there are no blocks.

    Examples:
        >>> model = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 9))
        >>> hidden_matrices(model) == {model[1].weight}
        True
    """
    left_out: set[nn.Parameter] = set()
    weights: list[tuple[str, nn.Parameter]] = []
    for prefix, module in model.named_modules():
        bare = next(module.children(), None) is not None and not isinstance(module, nn.MultiheadAttention)
        for key, parameter in module.named_parameters(recurse=False):
            if isinstance(module, _TABLES) or bare:
                left_out.add(parameter)
            elif parameter.ndim >= 2:
                weights.append((f"{prefix}.{key}", parameter))
    try:
        depths, last = layer_depths(model)
    except ValueError:
        depths, last = {}, 0
    # A shared weight has its first owner's name there, and one that comes again is a head's.
    head = [weight for name, weight in weights if depths.get(name, last) == last][-1:]
    return frozenset(weight for _, weight in weights if is_matrix(weight)) - left_out - set(head)
