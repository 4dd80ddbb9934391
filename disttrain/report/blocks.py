"""What a page is put together from: plain data, which the template lays out and escapes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def plain(value: object) -> str:
    """``value`` as text that a page may hold: what has no glyph, such as an escape of a terminal, is shown as one."""
    return _CONTROL.sub("�", str(value))


@dataclass(frozen=True, slots=True)
class Picture:
    """A figure.

    Attributes:
        svg: an ``svg`` element; the only text that is not escaped.
        said: in words, for who does not see it.
        legend: the name and class of colour of each curve.
        note: below it.
    """

    title: str
    svg: str
    said: str
    legend: tuple[tuple[str, str], ...] = ()
    note: str = ""
    kind: str = field(default="picture", init=False)


@dataclass(frozen=True, slots=True)
class Table:
    """Rows below headings; the first cell of a row is its heading.

    Attributes:
        folded: opened by a click, being long.
    """

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    folded: bool = False
    kind: str = field(default="table", init=False)


@dataclass(frozen=True, slots=True)
class Words:
    """Sentences, each a paragraph of its own."""

    lines: tuple[str, ...]
    kind: str = field(default="words", init=False)


@dataclass(frozen=True, slots=True)
class Code:
    """Text as it is, opened by a click."""

    title: str
    text: str
    kind: str = field(default="code", init=False)


Part = Picture | Table | Words | Code


@dataclass(frozen=True, slots=True)
class Section:
    """Part of a page, with a heading of its own; one without parts is left out."""

    title: str
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found, and what is not known, as clauses without a full stop.

    Attributes:
        of: whose verdict it is, where a page has several.
    """

    of: str
    said: tuple[str, ...]
    unknown: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """All that was found, as one sentence."""
        return sentence("; ".join(self.said))


@dataclass(frozen=True, slots=True)
class Chapter:
    """All that a page says of one directory, or of several compared.

    Attributes:
        what: ``run``, ``study``, ...
        facts: the few numbers that one looks for first, by name.
    """

    name: str
    what: str
    verdict: Verdict
    facts: tuple[tuple[str, str], ...]
    sections: tuple[Section, ...]


def sentence(text: str) -> str:
    """With a capital letter and a full stop."""
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "?", "!")) else ".")


def table(title: str, head: Sequence[object], rows: Sequence[Sequence[object]], *, folded: bool = False) -> Table:
    """A table of anything that can be said as text."""
    return Table(title, tuple(map(plain, head)), tuple(tuple(map(plain, row)) for row in rows), folded)
