"""No test in this repository proves nothing; the check that says so is tested on bad examples."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.assertions import asserting_functions, found_in

TESTS = Path(__file__).parents[1]


def test_every_test_asserts_something() -> None:
    helpers = {
        name
        for path in TESTS.rglob("*.py")
        if not path.name.startswith("test_")
        for name in asserting_functions(ast.parse(path.read_text()))
    }
    files = sorted(TESTS.rglob("test_*.py"))
    assert len(files) > 80
    wrong = [f"{path.relative_to(TESTS)}:{said}" for path in files for said in found_in(path.read_text(), helpers)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("assert f() == 1 if b else 2", "conditional expression"),
        ("assert (f() == 1, 'no')", "cannot fail"),
        ("assert 'a message'", "cannot fail"),
        ("assert f'{f()}'", "cannot fail"),
        ("assert [f() == 1]", "cannot fail"),
        ("f()", "test_it asserts nothing"),
        ("f() == 1", "test_it asserts nothing"),
        ("calls_a_helper()", "test_it asserts nothing"),
        ("subprocess.run(f, check=False)", "test_it asserts nothing"),
    ],
)
def test_bad_examples_are_found(body: str, said: str) -> None:
    source = f"def helper():\n    assert f()\ndef calls_a_helper():\n    helper()\ndef test_it():\n    {body}\n"
    (found,) = found_in(source)
    assert said in found


@pytest.mark.parametrize(
    "body",
    [
        "assert f() == (1 if b else 2)",
        "assert (f(), 1) == (2, 1)",
        "with pytest.raises(ValueError):\n        f()",
        "launch('torchrun').check()",
        "torch.testing.assert_close(f(), 1)",
        "subprocess.run(f, check=True)",
        "helper()",
        "from_another_file()",
    ],
)
def test_good_examples_are_not(body: str) -> None:
    source = f"def helper():\n    assert f()\ndef test_it():\n    {body}\n"
    assert found_in(source, {"from_another_file"}) == []


def skips(source: str) -> list[ast.Call]:
    """Calls that may leave a test out."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return [
        c for c in calls if isinstance(c.func, ast.Attribute) and c.func.attr in ("importorskip", "skipif", "xfail")
    ]


def unexplained(source: str) -> list[int]:
    """Lines of those that do not say why."""
    return [call.lineno for call in skips(source) if not any(word.arg == "reason" for word in call.keywords)]


def test_a_skip_says_why() -> None:
    assert unexplained("pytest.importorskip('x')\npytest.mark.skipif(True, reason='no x')") == [1]
    files = sorted(TESTS.rglob("*.py"))
    assert sum(len(skips(path.read_text())) for path in files) > 15
    assert {path.name: found for path in files if (found := unexplained(path.read_text()))} == {}
