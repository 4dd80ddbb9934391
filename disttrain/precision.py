"""The arithmetic of a step behind one surface. fp32 is the null object: every method is there and does nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from disttrain.config import Recipe
from disttrain.config.sections.speed import LossScaling
from disttrain.errors import InputError

SWITCHES: Mapping[Any, tuple[str, ...]] = {
    torch.backends.cuda.matmul: (
        "allow_fp16_reduced_precision_reduction",
        "allow_bf16_reduced_precision_reduction",
    ),
    torch.backends.cudnn: ("allow_tf32",),
}
"""Attributes of torch that :meth:`Precision.activate` sets, besides the float32 matmul precision."""
TORCHS = LossScaling()
"""GradScaler's own settings."""


class Precision:
    """fp32: forward, backward and update in float32, with no reduced-precision shortcut of the hardware.

    Attributes:
        name: as in the recipe.
        parameter_dtype: dtype of parameters, gradients and optimizer state.
        loss_scale: what :meth:`scale` multiplies with; reading fp16's waits for the device.
        max_overflows: consecutive overflows of one batch before giving up: by then the loss scale has shrunk by 2^40.

    Args:
        scaling: fp16's; others have none.
    """

    name = "fp32"
    parameter_dtype = torch.float32
    loss_scale: float = 1.0
    max_overflows = 40
    _tensor_cores = False
    _autocast: torch.dtype | None = None

    def __init__(self, device: torch.device, scaling: LossScaling = TORCHS) -> None:
        self.device = device

    def activate(self, *, reduced_reductions: bool = False) -> None:
        """Set the process-wide matmul switches. torch lets cuDNN use TF32 unless told otherwise: fp32 means fp32; and sums of
        products of 16 bits are kept in 16 bits unless told otherwise, which ``reduced_reductions`` allows."""
        for name in SWITCHES[torch.backends.cuda.matmul]:
            setattr(torch.backends.cuda.matmul, name, reduced_reductions)
        torch.set_float32_matmul_precision("high" if self._tensor_cores else "highest")
        if self.device.type == "cuda":
            torch.backends.cudnn.allow_tf32 = self._tensor_cores

    def forward_context(self) -> AbstractContextManager[object]:
        """Around the forward pass and the loss, not around backward."""
        return nullcontext() if self._autocast is None else torch.autocast(self.device.type, dtype=self._autocast)

    def scale(self, losses: Tensor) -> Tensor:
        """The losses to call backward on."""
        return losses

    def unscale_(self, optimizer: torch.optim.Optimizer) -> None:
        """Once per update, after the gradients are reduced: from here on ``p.grad`` is the true gradient."""

    def step(self, optimizer: torch.optim.Optimizer) -> bool:
        """Apply the update unless it overflowed. Returns whether it was applied; the same on all ranks, because
        infinities and NaN survive the reduction."""
        optimizer.step()
        return True

    def state_dict(self) -> dict[str, Any]:
        """JSON-able state to resume from."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned."""


class FP64(Precision):
    """Everything in float64: slow, for checks such as ``disttrain verify``."""

    name = "fp64"
    parameter_dtype = torch.float64


class TF32(Precision):
    """float32 storage; matrix products and convolutions in TF32 on GPUs that have it."""

    name = "tf32"
    _tensor_cores = True


class BF16(Precision):
    """float32 parameters, forward in bfloat16 under autocast. Same exponent range as float32, so no loss scaling."""

    name = "bf16"
    _tensor_cores = True
    _autocast = torch.bfloat16


class FP16(Precision):
    """float32 parameters, forward in float16 under autocast, dynamic loss scaling by torch's GradScaler.

    This is the one precision whose step makes the host wait for the device: whether the update is applied depends on it.
    """

    name = "fp16"
    _tensor_cores = True
    _autocast = torch.float16

    def __init__(self, device: torch.device, scaling: LossScaling = TORCHS) -> None:
        super().__init__(device)
        self.max_overflows = math.ceil(Precision.max_overflows * math.log(0.5) / math.log(scaling.backoff_factor))
        self._settings = scaling.model_dump(exclude={"initial"})
        self.scaler = torch.amp.GradScaler(device.type, init_scale=scaling.initial, **self._settings)

    def scale(self, losses: Tensor) -> Tensor:
        scaled: Tensor = self.scaler.scale(losses)
        return scaled

    @property
    def loss_scale(self) -> float:  # type: ignore[override]
        return float(self.scaler.get_scale())

    def unscale_(self, optimizer: torch.optim.Optimizer) -> None:
        self.scaler.unscale_(optimizer)

    def step(self, optimizer: torch.optim.Optimizer) -> bool:
        # GradScaler calls a fused optimizer's step after an overflow too and leaves the skipping to it. torch's SGD (2.13) then
        # makes momentum buffers without contents, and goes on with whatever lay in that memory. So GradScaler skips.
        optimizer._step_supports_amp_scaling = False  # type: ignore[attr-defined]
        # It does not tell whether it took the step, but the scale shrinks exactly when it did not.
        before = self.scaler.get_scale()
        self.scaler.step(optimizer)
        self.scaler.update()
        return bool(self.scaler.get_scale() >= before)

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = self.scaler.state_dict()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        # The scale is the checkpoint's; how it moves on is the recipe's word.
        self.scaler.load_state_dict({**state, **self._settings})


PRECISIONS: Mapping[str, type[Precision]] = {p.name: p for p in (Precision, FP64, TF32, BF16, FP16)}


def make_precision(recipe: Recipe, device: torch.device) -> Precision:
    """The recipe's precision on ``device``, with the process set to it."""
    precision = PRECISIONS[recipe.precision](device, recipe.loss_scaling or TORCHS)
    precision.activate(reduced_reductions=recipe.reduced_precision_reductions)
    return precision


def missing(name: str, device: torch.device) -> str:
    """What ``device`` lacks for training in a precision, in words; empty: nothing. The CPU has bf16 and fp16, if slowly."""
    if name == "tf32" and device.type != "cuda":
        return "TF32 is a format of GPUs, and this is the CPU: use precision: fp32, which computes the same here"
    if name not in ("tf32", "bf16") or device.type != "cuda":
        return ""
    capability = torch.cuda.get_device_capability(device)
    with torch.cuda.device(device):
        able = torch.cuda.is_bf16_supported(including_emulation=False) if name == "bf16" else capability >= (8, 0)
    if able:
        return ""
    found = f"{torch.cuda.get_device_name(device)} has compute capability {'.'.join(map(str, capability))}"
    return f"{found}, and {name} needs 8.0: use precision: fp32{' or fp16' if name == 'bf16' else ''}"


def require_device(name: str, device: torch.device) -> None:
    """Refuse to train in a precision that ``device`` does not have.

    Raises:
        InputError: it has not; the message says what to use.
    """
    if lacks := missing(name, device):
        raise InputError(f"precision {name}: {lacks}")


def use_precision(name: str, device: torch.device) -> Precision:
    """The precision of that name, its process-wide switches set: for a loop of your own. An optimizer that is stepped by itself
    needs one of its own.

    Args:
        name: ``fp64``, ``fp32``, ``tf32``, ``bf16`` or ``fp16``; parameters are to be of its ``parameter_dtype``.
        device: of this rank, ``engine.world.device``.

    Raises:
        InputError: there is none of that name, or the device does not have it.
    """
    if name not in PRECISIONS:
        raise InputError(f"precision {name!r}: expected one of {', '.join(PRECISIONS)}")
    require_device(name, device)
    precision = PRECISIONS[name](device)
    precision.activate()
    return precision
