"""What keeps the house small: files of at most 300 lines, functions of at most 60, and a `training` that is only that."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2] / "disttrain"
FILES = sorted(ROOT.rglob("*.py"))


def long_functions(source: str, most: int) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (node.end_lineno or 0) - node.lineno >= most:
            yield node.name


def test_long_functions_are_found() -> None:
    assert list(long_functions("def f():\n" + "    x = 1\n" * 3 + "def g():\n    pass\n", 3)) == ["f"]


def test_files_and_functions_are_short() -> None:
    assert len(FILES) > 150
    assert [path.name for path in FILES if len(path.read_text().splitlines()) > 300] == []
    assert [name for path in FILES for name in long_functions(path.read_text(), 60)] == []


def test_training_is_only_that() -> None:
    assert sum(len(path.read_text().splitlines()) for path in (ROOT / "training").glob("*.py")) <= 1400


def test_an_update_has_no_modes() -> None:
    """What is off is an object that does nothing, not an ``if``."""
    tree = ast.parse((ROOT / "training" / "step.py").read_text())
    (update,) = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "update")
    assert (update.end_lineno or 0) - update.lineno < 40
    assert not any(
        isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.Is | ast.IsNot) for node in ast.walk(update)
    )
