"""Which parameters of a model each stage trains, and what becomes of the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from disttrain.config import Recipe
from disttrain.errors import InputError
from disttrain.names import matching
from disttrain.plan.stages import StagePlan


@dataclass(frozen=True, slots=True)
class Trainable:
    """Names of the trained parameters, stage by stage, in the model's order.

    Attributes:
        named: whether a stage's were chosen by patterns; otherwise the model has chosen them, and what it does with the batch
            norm of the others is its own affair.
        ever: those that some stage trains.
    """

    stages: tuple[tuple[str, ...], ...]
    named: tuple[bool, ...]
    ever: tuple[str, ...]

    def choose(self, model: nn.Module, stage: int) -> None:
        """Make ``model`` train the parameters of ``stage`` and no others, with everything in training mode but the batch norm
        of frozen parts, which goes on with the running statistics that it has."""
        chosen = frozenset(self.stages[stage])
        for name, parameter in model.named_parameters():
            parameter.grad = None
            if parameter.requires_grad != (name in chosen):
                parameter.requires_grad_(name in chosen)
        model.train()
        if self.named[stage]:
            _freeze_norms(model)


def find_trainable(recipe: Recipe, stages: Sequence[StagePlan], model: nn.Module) -> Trainable:
    """From the patterns of each stage; without patterns, what the model has made trainable.

    Raises:
        InputError: a pattern matches nothing, nothing is left to train, or the layer that GradNorm measures is frozen.
    """
    named = {name: parameter for name, parameter in model.named_parameters() if parameter.is_floating_point()}
    own = [name for name, parameter in named.items() if parameter.requires_grad]
    found = []
    for i, stage in enumerate(stages):
        where = (
            "trainable"
            if not recipe.stages or recipe.stages[i].trainable is None
            else f"stages: trainable of stage {i + 1}"
        )
        names = own if stage.trainable is None else _matching(named, stage.trainable, where, "parameter")
        if not names:
            raise InputError("the model has no parameters to train: none of them requires a gradient")
        balance = recipe.loss.balance
        if balance is not None and balance.kind == "gradnorm":
            at = f"loss.balance, in stage {i + 1}" if recipe.stages else "loss.balance"
            _matching(names, balance.parameters, at, "trained parameter")
        found.append(tuple(names))
    ever = set().union(*found)
    by_name = tuple(stage.trainable is not None for stage in stages)
    return Trainable(tuple(found), by_name, tuple(name for name in named if name in ever))


def _matching(
    names: Sequence[str] | dict[str, nn.Parameter], patterns: Sequence[str], where: str, what: str
) -> list[str]:
    try:
        return matching(names, patterns, what)
    except ValueError as error:
        raise InputError(f"{where}: {error}") from None


def _freeze_norms(module: nn.Module, around: bool = False) -> None:
    """Put batch norm into evaluation mode where its own parameters are frozen; where it has none, those of the module
    around it, ``around`` telling whether they are."""
    own = [p.requires_grad for p in module.parameters()]
    frozen = not any(own) if own else around
    if frozen and isinstance(module, nn.modules.batchnorm._NormBase):
        module.eval()
    for child in module.children():
        _freeze_norms(child, frozen)
