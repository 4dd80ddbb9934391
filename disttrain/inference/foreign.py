"""Weights in files that disttrain did not write: read without running any code that they may hold."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from disttrain.errors import CheckpointError

WRAPPERS = ("state_dict", "model", "model_state_dict")
"""Keys under which training programs keep a state dict among other things."""


def read_file(path: Path) -> dict[str, Tensor]:
    """The tensors of a ``.safetensors`` file, or of a state dict that ``torch.save`` wrote, by name, on the CPU.

    Of a file with more in it, the state dict below ``state_dict``, ``model`` or ``model_state_dict``, if there is just one.

    Raises:
        CheckpointError: it cannot be read, or holds no state dict; the message says what it holds.
    """
    match path.suffix:
        case ".safetensors":
            return _read_safetensors(path)
        case ".pt" | ".pth" | ".bin":
            return _unwrapped(_read_torch(path))
    raise CheckpointError("expected a run directory, or a file that ends in .safetensors, .pt, .pth or .bin")


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    import safetensors.torch

    try:
        return safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"it cannot be read as safetensors: {error}") from None


def _read_torch(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise CheckpointError(
            "it is no state dict of tensors alone: what else it holds would run code when read, so it is not. Save "
            "model.state_dict() by itself, or as .safetensors"
        ) from None
    except (OSError, EOFError, RuntimeError, ValueError, KeyError) as error:
        raise CheckpointError(f"torch cannot read it: {str(error).splitlines()[0][:200]}") from None


def _unwrapped(found: Any) -> dict[str, Tensor]:
    if _is_state_dict(found):
        return dict(found)
    inner = (
        {key: found[key] for key in WRAPPERS if key in found and _is_state_dict(found[key])}
        if isinstance(found, dict)
        else {}
    )
    if len(inner) == 1:
        return dict(*inner.values())
    holds = ", ".join(map(str, found))[:100] if isinstance(found, dict) else f"a {type(found).__name__}"
    several = f"several state dicts ({', '.join(inner)})" if inner else f"no state dict, but {holds or 'nothing'}"
    raise CheckpointError(f"it holds {several}; expected one, by itself or below one of {', '.join(WRAPPERS)}")


def _is_state_dict(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and bool(value)
        and all(isinstance(k, str) and isinstance(t, Tensor) for k, t in value.items())
    )
