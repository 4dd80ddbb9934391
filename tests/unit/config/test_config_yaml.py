"""The strict reader against JSON, against PyYAML, and against YAML 1.2's core schema written down by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from disttrain.config.reading.problems import RecipeError
from disttrain.config.reading.strict_yaml import MAX_DEPTH, MAX_VALUES, parse, scalar

# YAML 1.2.2, section 10.3.2, but for hexadecimal, octal and not finite numbers, which a recipe does not take.
CORE: dict[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
CORE |= {"0": 0, "-0": 0, "+12": 12, "-7": -7, "9223372036854775807": 2**63 - 1, "-9223372036854775808": -(2**63)}
CORE |= {"1e3": 1000.0, "1E-3": 0.001, "-.5": -0.5, "2.": 2.0, "0.0": 0.0, "12e03": 12000.0, "+1.5e+1": 15.0}
TEXT = [
    "on",
    "Off",
    "yes",
    "NO",
    "y",
    "n",
    "nULL",
    "tRUE",
    "010",
    "-01",
    "0o7",
    "0x1",
    "0b1",
    "1_0",
    "1:30",
    "2024-01-01",
]
TEXT += ["1e", "e3", ".", "+", "-", "1.2.3", "--1", "1e3.5", "nan", "inf", "Infinity", "1 000", "٣", "½", "=", "1,5"]


@pytest.mark.parametrize(("text", "value"), CORE.items())
def test_plain_scalars_of_the_core_schema(text: str, value: Any) -> None:
    assert scalar(text) == value
    assert type(scalar(text)) is type(value)


@pytest.mark.parametrize("text", TEXT)
def test_everything_else_stays_as_typed(text: str) -> None:
    assert scalar(text) == text


def json_values(text: Callable[[str], bool]) -> st.SearchStrategy[Any]:
    return st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**63), 2**63 - 1)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=20).filter(text),
        lambda inner: (
            st.lists(inner, max_size=4) | st.dictionaries(st.text("abcxyz_ é-", max_size=6), inner, max_size=4)
        ),
        max_leaves=20,
    )


@given(json_values(lambda _: True))
def test_json_means_the_same(value: Any) -> None:
    document = parse(json.dumps(value), "x")
    assert document.problems == []
    assert json.dumps(document.data) == json.dumps(value)


def same_in_both_versions(text: str) -> bool:
    """PyYAML leaves a text like 0E0 bare: a number in YAML 1.2, but not in 1.1."""
    return isinstance(scalar(text), str) or yaml.safe_dump(text)[0] in "'\""


@given(json_values(same_in_both_versions))
def test_what_pyyaml_writes_is_read_back(value: Any) -> None:
    document = parse(yaml.safe_dump(value), "x")
    # PyYAML names equal objects with anchors; it is the reader's business to refuse them.
    if not any("anchor" in problem.message for problem in document.problems):
        assert document.problems == []
        assert json.dumps(document.data, sort_keys=True) == json.dumps(value, sort_keys=True)


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        document = parse(text, "x")
        json.dumps(document.data)
        problems = document.problems
    except RecipeError as error:
        problems = error.problems
    assert all(str(problem).startswith("x:") for problem in problems)


def test_lines_of_all_styles() -> None:
    text = "a: 1\nb:\n  - x\n  -\n    c: |\n      long\n      text\nd: {e: [1,\n  2]}\n"
    assert parse(text, "x").lines == {
        (): 1,
        ("a",): 1,
        ("b",): 2,
        ("b", 0): 3,
        ("b", 1): 5,
        ("b", 1, "c"): 5,
        ("d",): 8,
        ("d", "e"): 8,
        ("d", "e", 0): 8,
        ("d", "e", 1): 9,
    }


def test_depth_up_to_the_limit() -> None:
    assert parse("[" * MAX_DEPTH + "]" * MAX_DEPTH, "x").problems == []
    with pytest.raises(RecipeError, match=f"nested deeper than {MAX_DEPTH} levels"):
        parse("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), "x")


def test_size_up_to_the_limit() -> None:
    assert len(parse(f"[{'1,' * (MAX_VALUES - 1)}]", "x").data) == MAX_VALUES - 1
    with pytest.raises(RecipeError, match=f"more than {MAX_VALUES:,} keys and values"):
        parse(f"[{'1,' * MAX_VALUES}]", "x")


def test_the_first_of_two_equal_keys_counts_and_lists_do_not_mix() -> None:
    document = parse("a: {b: 1}\na: {b: 2, c: 3}\nd: 4\n", "x")
    assert document.data == {"a": {"b": 1}, "d": 4}
    assert [str(problem) for problem in document.problems] == ["x:2: a: is given twice, first in line 1"]


def test_quoted_scalars_are_text() -> None:
    assert parse("""['1', "true", 'null', "1e3", "a\\tb"]""", "x").data == ["1", "true", "null", "1e3", "a\tb"]
