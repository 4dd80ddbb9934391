"""Smaller weights, by torchao."""

from __future__ import annotations

from torch import nn

from disttrain.errors import InputError
from disttrain.inference.export.quiet import quiet


def int8_weights(model: nn.Module) -> str:
    """Keep the weights of all linear layers as int8, with one scale for each output (torchao's ``Int8WeightOnlyConfig``), in
    place; activations and all else stay as they are. Says how much it was.

    Raises:
        InputError: torchao is not installed, or the model has no linear layer.
    """
    try:
        with quiet():
            from torchao.quantization import Int8WeightOnlyConfig, quantize_
            from torchao.utils import unwrap_tensor_subclass
    except ImportError as error:
        raise InputError(
            f"--quantize int8 needs torchao, which cannot be imported ({error}): pip install 'disttrain[quantize]'"
        ) from error
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise InputError("--quantize int8: the model has no nn.Linear, the one kind of layer that is quantised")
    all_of_it = sum(p.numel() for p in model.parameters())
    changed = sum(module.weight.numel() for module in linear)
    quantize_(model, Int8WeightOnlyConfig())
    unwrap_tensor_subclass(model)  # plain tensors, so that whoever loads the file needs no torchao
    return f"int8 weights in {len(linear)} linear layers, {changed / all_of_it:.1%} of all parameters"
