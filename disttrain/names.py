"""Names that people write: which are meant, and which may have been."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase


def matching(names: Iterable[str], patterns: Sequence[str], what: str = "parameter") -> list[str]:
    """Those of ``names`` that match one of ``patterns`` (shell style: ``*``, ``?``, ``[abc]``), in their order: the one matcher
    behind every list of patterns.

    Args:
        what: the names are of, for the message.

    Raises:
        ValueError: a pattern matches nothing; the message names what is close.

    Examples:
        >>> matching(["0.weight", "0.bias", "1.weight"], ["0.*", "*.bias"])
        ['0.weight', '0.bias']
    """
    known = list(names)
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in known):
            close = difflib.get_close_matches(pattern, known, 3, 0.4) or known[:3]
            raise ValueError(f"no {what} matches {pattern!r}; there are {', '.join(close) or 'none'}")
    return [name for name in known if any(fnmatchcase(name, pattern) for pattern in patterns)]


def did_you_mean(word: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """To end a message about a word that is none of ``known``; empty where none is close.

    Examples:
        >>> did_you_mean("acuracy", ["loss", "accuracy"]), did_you_mean("x", ["loss"])
        ('; did you mean accuracy?', '')
    """
    close = difflib.get_close_matches(word, list(known), 1, cutoff)
    return f"; did you mean {close[0]}?" if close else ""


def some(names: Iterable[str], most: int = 3) -> str:
    """The first few, and how many more there are.

    Examples:
        >>> some("abcde"), some([])
        ('a, b, c and 2 more', 'none')
    """
    shown = list(names)
    return ", ".join(shown[:most]) + (f" and {len(shown) - most} more" if len(shown) > most else "") or "none"
