"""How gradients travel: the choices an engine makes when it is attached to a model."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, Literal

from disttrain.errors import InputError

log = logging.getLogger("disttrain")
Compression = Literal["none", "fp16", "bf16", "powersgd"]


@dataclass(frozen=True, slots=True)
class Exchange:
    """Settings of the gradient exchange.

    Attributes:
        bucket_mb: size of the gradient buckets, in MiB.
        compression: of the gradient on the wire. ``fp16`` and ``bf16`` send numbers of 16 bits and add in them, so their
            results depend on the number of ranks more than rounding of float32 does; ``powersgd`` (Vogels et al. 2019,
            arXiv:1905.13727) sends low-rank factors and remembers what it left out, in checkpoints too.
        powersgd_rank: of those factors.
        reduction: ``mean``, or Horovod's ``adasum`` (Maleki et al. 2020, arXiv:2006.02924) of the ranks' mean gradients,
            parameter by parameter: their sum where they are orthogonal, their mean where they are equal.
    """

    bucket_mb: float = 25.0
    compression: Compression = "none"
    powersgd_rank: int = 2
    reduction: Literal["mean", "adasum"] = "mean"


class Memory:
    """What an exchange remembers from one update to the next: nothing, unless it compresses with feedback of the error."""

    def state_dict(self) -> dict[str, Any]:
        """This rank's memory."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what an earlier process remembered."""
        if state:
            log.warning("what an earlier exchange had left out of the gradients is dropped: this one has no memory")


def check_exchange(exchange: Exchange, engine: str, ranks: int) -> None:
    """Refuse what an engine cannot do.

    Raises:
        InputError: the combination does not exist; the message says which do.
    """
    if ranks == 1:
        if exchange.reduction == "adasum":
            raise InputError(
                "communication.reduction adasum combines the gradients of ranks, and there is one: start more, or set mean"
            )
        return
    if exchange.compression in ("bf16", "powersgd") and engine == "horovod":
        raise InputError(
            f"communication.compression {exchange.compression}: Horovod has none and fp16; use one of them, or --engine ddp"
        )
    if exchange.reduction == "adasum":
        if engine != "horovod":
            raise InputError(
                f"communication.reduction adasum is Horovod's, and the engine is {engine}: use --engine horovod"
            )
        if ranks & (ranks - 1):
            raise InputError(f"communication.reduction adasum needs a power of two of ranks, not {ranks}")
