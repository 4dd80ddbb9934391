"""Wrong types, impossible values, and what YAML 1.1 would have taken for something else."""

from __future__ import annotations

from pathlib import Path

import pytest
from config_cases import COUNT, GOOD, RATE, changed, load, mistakes


def lr(text: str) -> str:
    return changed("lr: 0.1", f"lr: {text}")


def size(text: str) -> str:
    return changed("global: 64", f"global: {text}")


ONE_MISTAKE = {
    # Wrong types and impossible values of a number.
    "text for a number": (lr("fast"), f'5: optimizer.lr: got "fast"; expected {RATE}'),
    "a quoted number": (lr("'0.1'"), f'5: optimizer.lr: got "0.1"; expected {RATE}; write it without quotes'),
    "true for a number": (lr("true"), f"5: optimizer.lr: got true; expected {RATE}"),
    "a negative rate": (lr("-1"), f"5: optimizer.lr: got -1; expected {RATE}"),
    "no rate": (lr("0"), f"5: optimizer.lr: got 0; expected {RATE}"),
    "nan, as YAML writes it": (lr(".nan"), "5: optimizer.lr: got .nan; expected a finite number"),
    "infinity, as YAML writes it": (lr("-.inf"), "5: optimizer.lr: got -.inf; expected a finite number"),
    "nan, as Python writes it": (lr("nan"), f'5: optimizer.lr: got "nan"; expected {RATE}'),
    "too large a float": (lr("1e400"), "5: optimizer.lr: got 1e400; it does not fit into 64 bits"),
    "too small a float": (lr("1e-400"), "5: optimizer.lr: got 1e-400; it does not fit into 64 bits"),
    "5000 digits": (lr("9" * 5000), f"5: optimizer.lr: got {'9' * 46}...; it does not fit into 64 bits"),
    "5000 digits in quotes": (lr(f"'{'9' * 5000}'"), f'5: optimizer.lr: got "{"9" * 56}...; expected {RATE}'),
    "null for a number": (lr("null"), f"5: optimizer.lr: got null; expected {RATE}"),
    "nothing for a number": (lr(""), f"5: optimizer.lr: got null; expected {RATE}"),
    "a list for a number": (lr("[0.1]"), f"5: optimizer.lr: got [0.1]; expected {RATE}"),
    "a section for a number": (lr("{a: 1}"), f'5: optimizer.lr: got {{"a": 1}}; expected {RATE}'),
    "an empty batch": (size("0"), f"3: batch.global: got 0; expected {COUNT}"),
    "a negative batch": (size("-8"), f"3: batch.global: got -8; expected {COUNT}"),
    "a fractional batch": (size("2.5"), f"3: batch.global: got 2.5; expected {COUNT}"),
    "a float for a batch": (size("512.0"), f"3: batch.global: got 512.0; expected {COUNT}"),
    "true for a batch": (size("true"), f"3: batch.global: got true; expected {COUNT}"),
    "a batch of 10^12": (size("1000000000000"), f"3: batch.global: got 1000000000000; expected {COUNT}"),
    "a batch of 2^63": (
        size("9223372036854775808"),
        "3: batch.global: got 9223372036854775808; it does not fit into 64 bits",
    ),
    "a share of 1": (
        GOOD + "loss: {label_smoothing: 1}\n",
        "6: loss.label_smoothing: got 1; expected a number of at least 0 and less than 1",
    ),
    "0 where null turns off": (
        GOOD + "gradient: {clip_norm: 0}\n",
        f"6: gradient.clip_norm: got 0; expected {RATE}, or null",
    ),
    "a negative seed": (
        GOOD + "seed: -1\n",
        "6: seed: got -1; expected a whole number from 0 to 9223372036854775807",
    ),
    # What YAML 1.1 would have taken for something else.
    "octal": (size("010"), f'3: batch.global: got "010"; expected {COUNT}; write 10'),
    "octal of YAML 1.2": (size("0o10"), f'3: batch.global: got "0o10"; expected {COUNT}; write 8'),
    "hexadecimal": (size("0x10"), f'3: batch.global: got "0x10"; expected {COUNT}; write 16'),
    "underscores": (size("1_000"), f'3: batch.global: got "1_000"; expected {COUNT}; write 1000'),
    "base 60": (size("1:30"), f'3: batch.global: got "1:30"; expected {COUNT}; write one decimal number'),
    "a date": (size("2024-01-01"), f'3: batch.global: got "2024-01-01"; expected {COUNT}'),
    "an exponent in a whole number": (size("1e3"), f"3: batch.global: got 1000.0; expected {COUNT}"),
    "on for a choice": (
        GOOD + "precision: on\n",
        '6: precision: got "on"; expected fp64, fp32, tf32, bf16 or fp16',
    ),
    "yes for true": (
        GOOD + "checkpoint:\n  best: yes\n",
        '7: checkpoint.best: got "yes"; expected true or false',
    ),
    "true in quotes": (
        GOOD + "checkpoint:\n  best: 'true'\n",
        '7: checkpoint.best: got "true"; expected true or false without quotes',
    ),
    "1 for true": (GOOD + "checkpoint:\n  best: 1\n", "7: checkpoint.best: got 1; expected true or false"),
    # Lists.
    "one item of a list": (
        GOOD + "model:\n  name: mlp\n  hidden:\n    - 8\n    - true\n",
        f"10: model.hidden[1]: got true; expected {COUNT}",
    ),
    "a scalar for a list": (
        GOOD + "model: {name: mlp, hidden: 5}\n",
        f"6: model.hidden: got 5; expected a list of at least 1, each {COUNT}",
    ),
    "an empty list": (
        GOOD + "model: {name: mlp, hidden: []}\n",
        f"6: model.hidden: got []; expected a list of at least 1, each {COUNT}",
    ),
    "too short a pair": (
        changed("sgd, lr: 0.1", "adamw, lr: 0.1, betas: [0.9]"),
        "5: optimizer.betas[1]: is required; expected a number of at least 0 and less than 1",
    ),
}


@pytest.mark.parametrize(("text", "expected"), ONE_MISTAKE.values(), ids=ONE_MISTAKE.keys())
def test_one_wrong_value_gives_one_message(tmp_path: Path, text: str, expected: str) -> None:
    assert mistakes(tmp_path, text) == [f"r.yaml:{expected}"]


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 0.001), ("1E5", 1e5), (".5e-2", 0.005), ("1.", 1.0), ("+0.5", 0.5), ("1.0e+2", 100.0), ("3", 3.0)],
)
def test_numbers_that_yaml_1_1_takes_for_text_are_numbers(tmp_path: Path, text: str, value: float) -> None:
    recipe = load(tmp_path, lr(text))
    assert recipe.optimizer.lr == value
    assert type(recipe.optimizer.lr) is float


@pytest.mark.parametrize("name", ["on", "off", "yes", "no", "y", "n", "010", "0x1F", "1_000", "2024-01-01", "v1.0"])
def test_text_that_yaml_1_1_takes_for_something_else_is_text(tmp_path: Path, name: str) -> None:
    assert load(tmp_path, changed("name: small", f"name: {name}")).name == name
