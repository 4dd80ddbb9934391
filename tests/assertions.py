"""Tests that prove nothing: asserts that cannot fail, and test functions that assert nothing."""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterator, Set

Function = ast.FunctionDef | ast.AsyncFunctionDef
RAISING = {"raises", "warns", "fail", "deprecated_call"}  # pytest's
CHECKING = ("assert_", "check")  # torch's and NumPy's, mocks', and our own


def found_in(source: str, helpers: Set[str] = frozenset()) -> list[str]:
    """What is wrong in a file of tests, one ``line: message`` each.

    ``helpers`` are functions of other files that assert. Helpers of the file itself count too, one level deep.
    """
    tree = ast.parse(source)
    return [f"{line}: {message}" for line, message in sorted({*hollow_asserts(tree), *silent_tests(tree, helpers)})]


def hollow_asserts(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Asserts of a conditional expression (``==`` binds tighter than ``if``), of a tuple or of a constant."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assert):
            match node.test:
                case ast.IfExp():
                    yield node.lineno, "the value of this assert is a conditional expression"
                case ast.Tuple() | ast.List() | ast.Dict() | ast.JoinedStr() | ast.Lambda() | ast.Constant():
                    yield node.lineno, "this assert cannot fail or cannot hold"


def silent_tests(tree: ast.Module, helpers: Set[str] = frozenset()) -> Iterator[tuple[int, str]]:
    """Test functions without an assertion of their own or of a helper that they call."""
    asserting = helpers | asserting_functions(tree)
    suites = [node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name.startswith("Test")]
    for node in itertools.chain(tree.body, *suites):
        if isinstance(node, Function) and node.name.startswith("test"):
            calls = {name_of(call.func) for call in ast.walk(node) if isinstance(call, ast.Call)}
            if not asserts(node) and not calls & asserting:
                yield node.lineno, f"{node.name} asserts nothing"


def asserting_functions(tree: ast.Module) -> set[str]:
    """Names of the functions and methods of a file that assert something."""
    return {node.name for node in ast.walk(tree) if isinstance(node, Function) and asserts(node)}


def asserts(function: Function) -> bool:
    return any(
        isinstance(node, ast.Assert)
        or (isinstance(node, ast.Call) and is_check(node.func))
        or (isinstance(node, ast.keyword) and node.arg == "check" and is_true(node.value))
        for node in ast.walk(function)
    )


def is_check(function: ast.expr) -> bool:
    name = name_of(function)
    return name in RAISING or name.startswith(CHECKING)


def is_true(value: ast.expr) -> bool:
    return isinstance(value, ast.Constant) and value.value is True


def name_of(function: ast.expr) -> str:
    match function:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
    return ""
