"""What was probably meant by a key or a value that is not allowed."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

from disttrain.config.reading.strict_yaml import scalar

_MAX_LENGTH = 60


def similar(word: str, known: Sequence[str], cutoff: float = 0.6) -> str:
    """The most similar known word, or empty."""
    close = difflib.get_close_matches(word, known, 1, cutoff)
    return close[0] if close else ""


def suggest_key(key: str, parent: str, known: Sequence[str]) -> str:
    """The dotted key that was probably meant, or empty.

    In this order: the same key in another section, a similar one beside it, another toolkit's name for one of ours, a
    similar one in another section.

    Args:
        key: as given, in the section ``parent`` (empty for the top level).
        known: all dotted keys.
    """
    if key == "name" and parent:
        return ""  # many sections have one; the run's own, at the top, is what nobody means in a section
    prefix = f"{parent}." if parent else ""
    beside = [k for k in known if k.rpartition(".")[0] == parent]
    leaves: dict[str, str] = {}
    for k in sorted(known, key=lambda k: k.count(".")):
        leaves.setdefault(k.rpartition(".")[2], k)
    if key in leaves:
        return leaves[key]
    close = similar(key, [k.removeprefix(prefix) for k in beside])
    if close:
        return prefix + close
    # "learning_rte" is no neighbour of "lr" by letters, only by meaning.
    meant = _SYNONYMS.get(similar(key.lower(), list(_SYNONYMS), 0.7), "")
    return meant or leaves.get(similar(key, list(leaves), 0.8), "")


def number_hint(text: str) -> str:
    """How to write a number that was read as text; empty where it is no number at all.

    Examples:
        >>> number_hint("010"), number_hint("1_000"), number_hint("0x10"), number_hint("fast")
        ('; write 10', '; write 1000', '; write 16', '')
    """
    if len(text) > _MAX_LENGTH or not text.isascii():
        return ""
    if isinstance(scalar(text), int | float):
        return "; write it without quotes"
    if re.fullmatch(r"0x[0-9a-fA-F]+|0o[0-7]+|0b[01]+", text):
        return f"; write {int(text, 0)}"
    plain = re.sub(r"^([+-]?)0+(?=[0-9])", r"\1", text.replace("_", ""))
    if isinstance(scalar(plain), int | float):
        return f"; write {plain}"
    return "; write one decimal number" if re.fullmatch(r"[0-9]+(:[0-9]+)+", text) else ""


_OTHER_NAMES = {
    "optimizer.lr": "learning_rate base_lr",
    "optimizer.weight_decay": "wd",
    "batch.global": "batch_size global_batch",
    "batch.per_rank_max": "micro_batch",
    "batch.accumulation": "gradient_accumulation_steps",
    "epochs": "num_epochs max_epochs",
    "updates": "steps max_steps iterations",
    "data.workers": "num_workers",
    "seed": "random_seed",
    "gradient.clip_norm": "grad_clip max_grad_norm gradient_clipping",
    "task": "dataset",
    "model": "network",
    "schedule": "scheduler lr_schedule",
    "schedule.warmup.epochs": "warmup_epochs",
    "schedule.warmup.updates": "warmup_steps",
    "precision": "amp dtype",
    "loss.label_smoothing": "smoothing",
}
_SYNONYMS = {word: key for key, words in _OTHER_NAMES.items() for word in words.split()}
