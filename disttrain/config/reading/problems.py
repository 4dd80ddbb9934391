"""What is wrong with a recipe: every mistake with its place, and all of them at once."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from disttrain.errors import InputError

Path = tuple[str | int, ...]
MAX_SHOWN = 100
_MAX_WIDTH = 60


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake.

    Attributes:
        where: ``file:line``, ``file:line:column``, or the override it stands in.
        key: dotted path of the key, empty for the file as a whole.
        message: what was given and what is allowed.
        line: for sorting; 0 where there is none.
        suggestion: the dotted key that was probably meant, or empty.
    """

    where: str
    key: str
    message: str
    line: int = 0
    suggestion: str = ""

    def __str__(self) -> str:
        hint = f"; did you mean {self.suggestion}?" if self.suggestion else ""
        return f"{self.where}: {f'{self.key}: ' if self.key else ''}{self.message}{hint}"


class RecipeError(InputError):
    """A recipe has mistakes.

    Attributes:
        problems: each mistake once, in the order of the file and then of the overrides. ``str`` gives one line each, for
            the first ``MAX_SHOWN``.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = sorted(dict.fromkeys(problems), key=lambda p: p.line or math.inf)
        lines = [str(problem) for problem in self.problems[:MAX_SHOWN]]
        if len(self.problems) > MAX_SHOWN:
            lines.append(f"... and {len(self.problems) - MAX_SHOWN:,} more mistakes")
        super().__init__("\n".join(lines))

    def __reduce__(self) -> tuple[type[RecipeError], tuple[list[Problem]]]:
        """Travels between ranks with its problems; by default it would be made again from its text."""
        return type(self), (self.problems,)


def shown(value: Any) -> str:
    """A value as it may stand in a message: short, on one line, without characters that steer a terminal.

    Examples:
        >>> shown("on"), shown(None), shown([1, 2.5])
        ('"on"', 'null', '[1, 2.5]')
    """
    # The cut comes first: a value may be as large as the file.
    text = json.dumps(value[:_MAX_WIDTH] if isinstance(value, str) else value, ensure_ascii=False, default=str)
    if len(text) > _MAX_WIDTH:
        text = f"{text[: _MAX_WIDTH - 3]}..."
    return printable(text)


def printable(text: str) -> str:
    r"""``text`` with everything that does not print as ``\\u....``."""
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)


def dotted(path: Path) -> str:
    """A path as a person writes it.

    Examples:
        >>> dotted(("schedule", "decay", "milestones", "epochs", 2))
        'schedule.decay.milestones.epochs[2]'
    """
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return printable(text if len(text) <= 2 * _MAX_WIDTH else f"{text[: 2 * _MAX_WIDTH]}...")
