"""Figures of matplotlib as SVG that belongs to a page: its fonts, its colours in light and in dark, nothing from elsewhere."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from disttrain.errors import InputError
from disttrain.study.plots import BLUE, GREY, ORANGE, RAMP

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TEXT, FAINT = "#101010", "#d0d0d1"
COLORS = (BLUE, ORANGE, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C564B")
"""Of curves, told apart with any kind of sight; the page has a light and a dark one in place of each."""
_VARIABLES = {
    **{color.lower(): f"var(--c{i})" for i, color in enumerate(COLORS)},
    **{color: f"var(--r{i})" for i, color in enumerate(RAMP)},
    GREY.lower(): "var(--muted)",
    FAINT: "var(--line)",
    TEXT: "currentColor",
    "#000000": "currentColor",
}
_SETTINGS: Any = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a name with dollars in it is a name
    "font.size": 10,
    "axes.labelsize": 10,
    "legend.fontsize": 9,
    "legend.title_fontsize": 9,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": FAINT,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.7,
    "xtick.color": TEXT,
    "ytick.color": TEXT,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "text.color": TEXT,
    "axes.labelcolor": TEXT,
    "lines.linewidth": 1.6,
}
WIDTH, HEIGHT = 5.6, 3.3
"""Of a figure, in inches of 72 units."""


def require() -> None:
    """See that a page can be made, before anything is read.

    Raises:
        InputError: matplotlib or jinja2 is not installed.
    """
    try:
        import jinja2  # noqa: F401
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise InputError(f'a report needs matplotlib and jinja2 ({error}): pip install "disttrain[report]"') from None


@contextmanager
def styled(name: str) -> Iterator[None]:
    """Figures that are made and written inside look like the page. The same ``name`` and figure are the same bytes."""
    from matplotlib import rc_context, rcdefaults

    with rc_context():
        rcdefaults()  # what a user's matplotlibrc says is for other pictures
        with rc_context({**_SETTINGS, "svg.hashsalt": name}):
            yield


def drawn(name: str, draw: Callable[[Axes], None], *, height: float = HEIGHT) -> str:
    """What ``draw`` draws on axes, as an ``svg`` element. ``name`` has to be that of no other figure of the page."""
    from matplotlib.figure import Figure

    with styled(name):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        draw(figure.subplots())
        return element(figure, name)


def element(figure: Figure, name: str) -> str:
    """``figure`` as an ``svg`` element of an HTML page, inside :func:`styled`."""
    from matplotlib import rc_context

    with rc_context({"svg.hashsalt": name}):
        file = io.BytesIO()
        figure.savefig(file, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    root = ElementTree.fromstring(file.getvalue())
    used = set(re.findall(r"(?:url\(|href=\")#([^)\"]+)", file.getvalue().decode()))
    _clean(root, used, name)
    for size in ("width", "height", "version"):
        root.attrib.pop(size, None)
    root.set("aria-hidden", "true")  # what it shows is said beside it
    return ElementTree.tostring(root, encoding="unicode", short_empty_elements=True)


def _clean(node: ElementTree.Element, used: set[str], name: str) -> None:
    """No namespaces, no ids but those that are referred to, no style for the whole page, two decimals."""
    node.tag = node.tag.rpartition("}")[2]
    for child in list(node):
        if child.tag.rpartition("}")[2] in ("style", "metadata"):
            node.remove(child)
        else:
            _clean(child, used, name)
    if node.tag != "text" and node.tag != "tspan":
        node.text = node.tail = None
    node.tail = None
    for key, value in list(node.attrib.items()):
        del node.attrib[key]
        key = key.rpartition("}")[2]
        if key == "id":
            if value in used:
                node.set("id", f"{name}-{value}")
            continue
        if key == "href" and value.startswith("#"):
            value = f"#{name}-{value[1:]}"
        value = value.replace("url(#", f"url(#{name}-")
        node.set(key, _style(value) if key == "style" else _short(value))


def _style(text: str) -> str:
    rules = [rule.strip() for rule in text.split(";")]
    kept = [_short(rule) for rule in rules if rule and not rule.startswith("font-family")]
    return "; ".join(re.sub(r"#[0-9a-fA-F]{6}", lambda m: _VARIABLES.get(m[0].lower(), m[0]), rule) for rule in kept)


def _short(text: str) -> str:
    if text.startswith("data:"):
        return text
    return re.sub(r"-?\d+\.\d{3,}", lambda m: f"{float(m[0]):.2f}".rstrip("0").rstrip("."), text).replace("\n", "")
