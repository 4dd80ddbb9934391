"""The page: chapters laid out by a template, which escapes all text."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files

from disttrain.report.blocks import Chapter
from disttrain.report.judge import RULES
from disttrain.version import __version__


def page(chapters: Sequence[Chapter]) -> str:
    """One HTML file without a script and without anything from elsewhere; the same chapters are the same bytes."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    package = files("disttrain.report")
    made = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    made.filters["drawing"] = Markup  # of figures alone: the only text that is markup already
    template = made.from_string((package / "page.html.jinja").read_text(encoding="utf-8"))
    style = Markup((package / "page.css").read_text(encoding="utf-8"))
    return template.render(chapters=chapters, rules=RULES, style=style, version=__version__) + "\n"
