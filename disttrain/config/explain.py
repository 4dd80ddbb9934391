"""From pydantic's errors to messages for a person: place, key, what was given, what is allowed, and a suggestion."""

from __future__ import annotations

import difflib
import json
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from disttrain.config.problems import Problem
from disttrain.config.recipe import Recipe
from disttrain.config.strict_yaml import Path, dotted

_YES_NO = {"on", "off", "yes", "no", "y", "n"}


def explain(
    error: ValidationError, data: Any, lines: dict[Path, int], origins: dict[Path, str], name: str
) -> list[Problem]:
    """One problem for each of pydantic's errors."""
    found = []
    for item in error.errors(include_url=False):
        path = _without_tags(item["loc"], data)
        where, line = _place(path, lines, origins, name)
        found.append(Problem(where, dotted(path), _message(item, path, data), line))
    return list(dict.fromkeys(found))


def sections(model: type[BaseModel], key: str) -> list[type[BaseModel]]:
    """The section classes that ``key`` of ``model`` may hold."""
    field = next((f for n, f in model.model_fields.items() if (f.alias or n) == key), None)
    found: list[type[BaseModel]] = []

    def collect(annotation: Any) -> None:
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            found.append(annotation)
        for argument in get_args(annotation):
            collect(argument)

    if field is not None:
        collect(field.annotation)
        for extra in field.metadata:
            collect(extra)
    return found


def chosen(candidates: list[type[BaseModel]], data: Any) -> type[BaseModel] | None:
    """The section class that ``data`` selects by its name or kind."""
    if len(candidates) == 1:
        return candidates[0]
    for model in candidates:
        for selector in ("name", "kind"):
            field = model.model_fields.get(selector)
            if field is not None and isinstance(data, dict) and data.get(selector) in get_args(field.annotation):
                return model
    return None


def keys(model: type[BaseModel]) -> list[str]:
    """The keys of a section, as written in a recipe."""
    return [field.alias or name for name, field in model.model_fields.items()]


def every_key(model: type[BaseModel] = Recipe, prefix: str = "", data: Any = None) -> list[str]:
    """All dotted keys a recipe can have, in the sections that ``data`` selects."""
    found = []
    for key in keys(model):
        found.append(prefix + key)
        inner = data.get(key) if isinstance(data, dict) else None
        section = chosen(sections(model, key), inner)
        if section is not None:
            found += every_key(section, f"{prefix}{key}.", inner)
    return found


def _without_tags(loc: tuple[str | int, ...], data: Any) -> Path:
    """pydantic names the chosen member of a union in the path; a person does not write it."""
    path: list[str | int] = []
    model: type[BaseModel] | None = Recipe
    skip = False
    for i, part in enumerate(loc):
        if skip:
            skip = False
            continue
        path.append(part)
        candidates = sections(model, part) if model is not None and isinstance(part, str) else []
        data = data.get(part) if isinstance(data, dict) else None
        model = chosen(candidates, data)
        skip = len(candidates) > 1 and i + 1 < len(loc)
    return tuple(path)


def _place(path: Path, lines: dict[Path, int], origins: dict[Path, str], name: str) -> tuple[str, int]:
    """The override or line of the path, or of the nearest section around it."""
    inside = next((where for origin, where in origins.items() if origin[: len(path)] == path), None)
    if inside is not None and path not in lines:
        return inside, 0
    for end in range(len(path), -1, -1):
        if path[:end] in origins:
            return origins[path[:end]], 0
        if path[:end] in lines:
            return f"{name}:{lines[path[:end]]}", lines[path[:end]]
    return name, 0


def _message(item: Any, path: Path, data: Any) -> str:
    given, kind = item["input"], item["type"]
    if kind == "extra_forbidden":
        return f"unknown key{_suggestion(path, data)}"
    if kind == "missing":
        return "is required"
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        return _unknown_name(path, given)
    if kind == "value_error":
        return str(item["ctx"]["error"])
    expected = (
        item["msg"].replace("Input should be", "expected").replace("a valid ", "a ").replace("a integer", "an integer")
    )
    hint = ""
    if isinstance(given, str) and kind.startswith("bool") and given.lower() in _YES_NO:
        hint = "; write true or false"
    elif isinstance(given, str) and kind.startswith(("int", "float")) and given.replace("_", "").lstrip("0").isdigit():
        hint = f"; write {int(given.replace('_', ''))}"
    return f"got {_shown(given)}; {expected}{hint}"


def _unknown_name(path: Path, given: Any) -> str:
    section = _section_of(path)
    candidates = sections(section, str(path[-1])) if section is not None else []
    selector = "kind" if candidates and "kind" in candidates[0].model_fields else "name"
    allowed = [a for c in candidates for a in get_args(c.model_fields[selector].annotation) if isinstance(a, str)]
    name = given.get(selector) if isinstance(given, dict) else None
    if name is None:
        what = f"{selector} is missing" if isinstance(given, dict) else f"got {_shown(given)}"
    else:
        close = difflib.get_close_matches(str(name), allowed, 1)
        what = f"unknown {selector} {name!r}" + (f"; did you mean {close[0]}?" if close else "")
    own = "" if selector == "kind" else ", or pkg.mod:Object"
    return f"{what}; expected a section with {selector}: {' | '.join(allowed)}{own}"


def _section_of(path: Path) -> type[BaseModel] | None:
    model: type[BaseModel] | None = Recipe
    for part in path[:-1]:
        candidates = sections(model, str(part)) if model is not None else []
        model = candidates[0] if candidates else None
    return model


def _suggestion(path: Path, data: Any) -> str:
    """The key that was probably meant: a similar one beside it, the same one in another section, or a similar one there."""
    key, parent = str(path[-1]), dotted(path[:-1])
    prefix = f"{parent}." if parent else ""
    everything = every_key(data=data)
    beside = [k.removeprefix(prefix) for k in everything if k.startswith(prefix) and "." not in k.removeprefix(prefix)]
    elsewhere = [k for k in everything if k.rsplit(".", 1)[-1] == key]
    close = difflib.get_close_matches(key, beside, 1, cutoff=0.6)
    if elsewhere:
        return f"; did you mean {' or '.join(elsewhere[:2])}?"
    if not close:
        # "learning_rte" is no neighbour of "lr" by letters, only by meaning.
        close = difflib.get_close_matches(key, _SYNONYMS, 1, cutoff=0.7)
        meant = _SYNONYMS[close[0]] if close else ""
        return f"; did you mean {meant}?" if meant else f"; expected one of {', '.join(beside)}" if beside else ""
    return f"; did you mean {prefix}{close[0]}?"


_SYNONYMS = {
    "learning_rate": "optimizer.lr",
    "base_lr": "optimizer.lr",
    "batch_size": "batch.global",
    "global_batch": "batch.global",
    "micro_batch": "batch.per_rank_max",
    "num_epochs": "epochs",
    "max_epochs": "epochs",
    "steps": "updates",
    "max_steps": "updates",
    "iterations": "updates",
    "num_workers": "data.workers",
    "random_seed": "seed",
    "grad_clip": "gradient.clip_norm",
    "max_grad_norm": "gradient.clip_norm",
    "gradient_clipping": "gradient.clip_norm",
    "dataset": "task.name",
    "scheduler": "schedule",
    "lr_schedule": "schedule",
    "amp": "precision",
    "dtype": "precision",
    "smoothing": "loss.label_smoothing",
    "wd": "optimizer.weight_decay",
}


def _shown(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."
