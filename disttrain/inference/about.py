"""What ``disttrain show`` says of a recipe's weights: where they begin, which are trained when, and how quickly."""

from __future__ import annotations

from torch import nn

from disttrain.config import Recipe
from disttrain.config.sections.fine_tune import StartFrom
from disttrain.errors import InputError
from disttrain.inference.start import fingerprint
from disttrain.methods.rates import decayed, parameter_settings
from disttrain.methods.trainable import find_trainable
from disttrain.names import some
from disttrain.plan.explain import Line
from disttrain.plan.plan import StepPlan


def about_weights(recipe: Recipe, plan: StepPlan, model: nn.Module) -> list[Line]:
    """Lines for ``disttrain show``; none where a recipe says nothing of it.

    Raises:
        InputError: a pattern matches nothing, or nothing is left to train.
    """
    trainable = find_trainable(recipe, plan.stages, model)
    settings = decayed(parameter_settings(recipe, model, trainable.ever), plan.carried.decay_factor)
    total = list(model.parameters())
    lines: list[Line] = [] if recipe.start_from is None else [_start(recipe.start_from)]
    if any(trainable.named):
        for i, names in enumerate(trainable.stages, start=1):
            size = f"{len(names)} of {len(total)} tensors"
            lines.append((f"stage {i} trains" if recipe.stages else "trained", size, some(names)))
    if recipe.optimizer.groups or recipe.optimizer.layer_decay is not None:
        kinds = {tuple(sorted(own.items())) for own in settings.values()}
        for kind in sorted(kinds):
            members = [name for name, own in settings.items() if tuple(sorted(own.items())) == kind]
            lines.append(("parameter group", ", ".join(_setting(*pair) for pair in kind), some(members)))
    return lines


def _start(section: StartFrom) -> Line:
    try:
        found = f"sha256 {fingerprint(section)[:16]}"
    except InputError:
        found = "not there now"
    left = f"; without {', '.join(section.exclude)}" if section.exclude else ""
    which = f", {section.which}" if section.which != "newest" else ""
    return "weights from", f"{section.path}{which}", f"{found}{left}{'' if section.strict else '; what fits of it'}"


def _setting(name: str, value: float) -> str:
    return f"learning rate x {value:.4g}" if name == "lr_factor" else f"weight decay {value:g}"
