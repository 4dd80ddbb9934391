"""What is wrong with a recipe: every mistake with its place, and all of them at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from disttrain.errors import InputError


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake.

    Attributes:
        where: ``file:line``, ``file:line:column``, or the override it stands in.
        key: dotted path of the key, empty for the file as a whole.
        message: what was given and what is allowed.
        line: for sorting; 0 where there is none.
    """

    where: str
    key: str
    message: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.where}: {self.key}: {self.message}" if self.key else f"{self.where}: {self.message}"


class RecipeError(InputError):
    """A recipe has mistakes; ``problems`` lists them in the order of the file, and ``str`` gives one line each."""

    def __init__(self, problems: Sequence[Problem] | str) -> None:
        self.problems = [] if isinstance(problems, str) else sorted(problems, key=lambda p: p.line)
        super().__init__(problems if isinstance(problems, str) else "\n".join(str(p) for p in self.problems))
