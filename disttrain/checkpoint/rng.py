"""The state of this process's random generators as plain JSON values, and back."""

from __future__ import annotations

import base64
import binascii
import math
import random
from typing import Any

import numpy as np
import torch

from disttrain.errors import CheckpointError

_WORDS = 624
"""Words of 32 bits in the state of the Mersenne twister."""


def capture_rng(device: torch.device | str) -> dict[str, Any]:
    """State of ``random``, ``numpy.random``, torch's CPU generator and, for a CUDA ``device``, that device's.

    Draws nothing. Arrays are base64 of little-endian 32-bit words or of bytes.

    Raises:
        CheckpointError: NumPy's global generator was replaced by one that is no Mersenne twister.
    """
    version, words, gauss = random.getstate()
    numpy_state: dict[str, Any] = np.random.get_state(legacy=False)
    if numpy_state["bit_generator"] != "MT19937":
        raise CheckpointError(
            f"numpy.random uses {numpy_state['bit_generator']}; only the default MT19937 can be saved"
        )
    state: dict[str, Any] = {
        "python": {
            "version": version,
            "key": _encode(np.array(words[:-1], dtype="<u4")),
            "position": words[-1],
            "gauss": gauss,
        },
        "numpy": {
            "key": _encode(numpy_state["state"]["key"].astype("<u4")),
            "position": int(numpy_state["state"]["pos"]),
            "has_gauss": int(numpy_state["has_gauss"]),
            "gauss": float(numpy_state["gauss"]),
        },
        "torch": _encode(torch.get_rng_state().numpy()),
    }
    if torch.device(device).type == "cuda":
        state["cuda"] = _encode(torch.cuda.get_rng_state(device).numpy())
    return state


def restore_rng(state: dict[str, Any], device: torch.device | str) -> None:
    """Undo everything drawn since `capture_rng`, which must have been called for the same kind of device.

    Raises:
        CheckpointError: ``state`` is not what `capture_rng` returns for such a device. Nothing is restored
            then.
    """
    device = torch.device(device)
    expected = {"python", "numpy", "torch"} | ({"cuda"} if device.type == "cuda" else set())
    if not isinstance(state, dict) or state.keys() != expected:
        given = sorted(map(str, state)) if isinstance(state, dict) else type(state).__name__
        raise CheckpointError(
            f"the stored random state has {given}, but resuming on {device.type} needs {sorted(expected)}"
        )
    before = capture_rng(device)
    try:
        _restore(state, device)
    except (KeyError, TypeError, ValueError, OverflowError, RuntimeError) as error:
        _restore(before, device)
        raise CheckpointError(f"the stored random state is damaged: {error}") from error


def _restore(state: dict[str, Any], device: torch.device) -> None:
    python, numpy_state = state["python"], state["numpy"]
    gauss = python["gauss"]
    if gauss is not None:
        gauss = _finite(gauss)
    words = tuple(int(word) for word in _words(python["key"]))
    random.setstate((python["version"], (*words, _position(python["position"])), gauss))
    if numpy_state["has_gauss"] not in (0, 1):
        raise ValueError(f"has_gauss is {numpy_state['has_gauss']!r}")
    np.random.set_state(
        (
            "MT19937",
            _words(numpy_state["key"]),
            _position(numpy_state["position"]),
            int(numpy_state["has_gauss"]),
            _finite(numpy_state["gauss"]),
        )
    )
    torch.set_rng_state(torch.frombuffer(bytearray(_decode(state["torch"])), dtype=torch.uint8))
    if device.type == "cuda":
        torch.cuda.set_rng_state(torch.frombuffer(bytearray(_decode(state["cuda"])), dtype=torch.uint8), device)


def _encode(array: np.ndarray[Any, Any]) -> str:
    return base64.b64encode(array.tobytes()).decode("ascii")


def _decode(text: Any) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(f"not base64: {error}") from error


def _words(text: Any) -> np.ndarray[Any, np.dtype[np.uint32]]:
    words = np.frombuffer(_decode(text), dtype="<u4")
    if len(words) != _WORDS:
        raise ValueError(f"a state of {len(words)} words instead of {_WORDS}")
    return words.astype(np.uint32)


def _position(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= _WORDS:
        raise ValueError(f"position {str(value)[:40]} is not within 0 to {_WORDS}")
    return value


def _finite(value: Any) -> float:
    if type(value) is not float or not math.isfinite(value):
        raise ValueError(f"{str(value)[:40]} is not a finite float")
    return value
