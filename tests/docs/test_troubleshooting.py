"""The messages that the troubleshooting page explains are messages of this version."""

from __future__ import annotations

import ast
import re

from tests.harness import ROOT


def texts() -> str:
    """All strings of the package, those that stand one after the other joined as Python joins them."""
    found = []
    for path in sorted((ROOT / "disttrain").rglob("*.py")):
        found += [
            n.value
            for n in ast.walk(ast.parse(path.read_text()))
            if isinstance(n, ast.Constant) and isinstance(n.value, str)
        ]
    return "\n".join(found)


def test_every_message_is_one_of_ours() -> None:
    explained = re.findall(r"^### `(.+)`$", (ROOT / "docs/troubleshooting.md").read_text(), re.M)
    assert len(explained) > 25
    ours = texts()
    assert [message for message in explained if message not in ours] == []
