"""How deep in a model each parameter lies, for learning rates that decay from layer to layer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import torch
from torch import nn

_LISTS = (nn.ModuleList, nn.Sequential)


def layer_depths(model: nn.Module) -> tuple[dict[str, int], int]:
    """Depth of each parameter by name, and that of the head.

    *Blocks* are the numbered children, with children and parameters of their own and no plain lists themselves, of an
    ``nn.ModuleList`` or ``nn.Sequential`` that has two of one class or one of a class that another such list has twice:
    ``h.3``, ``encoder.layer.3``, ``layer2.0``. What is inside a block is not looked at; but where the members of a list differ
    in width and have such lists in them, they are the stages of a Swin or ConvNeXt, and the blocks are inside:
    ``stages.2.blocks.3``. Blocks are numbered from 1 in the model's order, through all lists. What the model registers before the
    first block (embeddings, a stem) has depth 0, what comes after the last (the final norm, the head) the number of blocks plus
    1, and what lies between two blocks the depth of the one before it.

    With the factor ``decay ** (head - depth)`` this is, for a vision transformer, the layer-wise decay of BEiT (Bao et al. 2022,
    arXiv:2106.08254). Others differ by one power: ELECTRA's program (Clark et al. 2020, arXiv:2003.10555) gives everything
    below the head one more, and timm counts a ViT's final norm with the last block.

    Raises:
        ValueError: the model has no such blocks.

    Examples:
        >>> block = lambda: nn.MultiheadAttention(2, 1)
        >>> model = nn.ModuleDict({"stem": nn.Linear(2, 2), "h": nn.ModuleList([block(), block()]), "head": nn.Linear(2, 1)})
        >>> depths, head = layer_depths(model)
        >>> depths["stem.bias"], depths["h.0.in_proj_bias"], depths["h.1.out_proj.bias"], depths["head.weight"], head
        (0, 1, 2, 3, 3)
    """
    blocks = _blocks(model)
    if not blocks:
        raise ValueError("the model has no numbered blocks, such as h.3, layers.3 or blocks.3, to tell depth by")
    depths: dict[str, int] = {}
    latest = 0
    for name, _ in model.named_parameters():
        parts = name.split(".")
        own = next((blocks[outer] for end in range(len(parts)) if (outer := ".".join(parts[:end])) in blocks), None)
        latest = max(latest, own or 0)
        between = latest if latest < len(blocks) else len(blocks) + 1
        depths[name] = between if own is None else own
    return depths, len(blocks) + 1


def _blocks(model: nn.Module) -> dict[str, int]:
    """Each block's number, from 1, by name."""
    lists = list(_lists(model, ""))
    repeated = {kind for found in lists for kind, count in Counter(map(type, found.values())).items() if count > 1}
    chosen = {name for found in lists if repeated & set(map(type, found.values())) for name in found}
    return {name: number for number, name in enumerate((n for n, _ in model.named_modules() if n in chosen), start=1)}


def _lists(module: nn.Module, prefix: str, in_stage: bool = False) -> Iterator[dict[str, nn.Module]]:
    """The numbered children of each list in ``module`` that may be blocks, by name."""
    children = {f"{prefix}{key}": child for key, child in module.named_children()}
    found = {name: child for name, child in children.items() if isinstance(module, _LISTS) and _is_composite(child)}
    stages = not in_stage and _are_stages(list(found.values()))
    if found and not stages:
        yield found
    for name, child in children.items():
        if name not in found or stages:
            yield from _lists(child, f"{name}.", in_stage or stages)


def _are_stages(members: list[nn.Module]) -> bool:
    """Whether they have blocks of their own and differ in width. The experts of a layer are such a list too, but layers are
    as wide as each other."""
    shapes: dict[str, torch.Size] = {}
    wide = (shapes.setdefault(name, p.shape) != p.shape for member in members for name, p in member.named_parameters())
    inner = (Counter(map(type, found.values())) for member in members for found in _lists(member, "", True))
    return any(wide) and any(count > 1 for counts in inner for count in counts.values())


def _is_composite(module: nn.Module) -> bool:
    return (
        not isinstance(module, _LISTS)
        and next(module.children(), None) is not None
        and next(module.parameters(), None) is not None
    )
