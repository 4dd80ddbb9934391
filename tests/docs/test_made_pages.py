"""The pages that are made: every key of a recipe is there, with an example that the recipe's own classes accept."""

from __future__ import annotations

import importlib.util
import re
import sys
from types import ModuleType

import pytest
from pydantic import ValidationError

from disttrain.config.reading.fields import fields
from disttrain.config.sections.base import ALTERNATIVES
from tests.harness import ROOT


@pytest.fixture(scope="module")
def pages() -> ModuleType:
    found = importlib.util.spec_from_file_location("pages", ROOT / "tools/pages.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules["pages"] = module
    found.loader.exec_module(module)
    return module


# An example may need another key's value besides; then the refusal names that key.
ASKS_FOR_MORE = re.compile(r"go(es)? with|needs|expected [\w, ]+ or \w+")


def test_every_example_is_tried(pages: ModuleType) -> None:
    tried, refused = 0, dict[str, str]()
    for _, section in pages.sections():
        for key, field in fields(section).items():
            others = {other for group in ALTERNATIVES if key in group for other in group} - {key}
            given = {k: pages.value_of(k, fields(section)[k]) for k in pages.needed(section) if k not in others}
            try:
                section.model_validate(given | {key: pages.value_of(key, field)})
            except ValidationError as error:
                refused[f"{section.__name__}.{key}"] = str(error)
            tried += 1
    assert tried > 250
    assert len(refused) < 18  # of which `carry` of each optimizer that has it, and needs its lr_scaling
    assert [key for key, error in refused.items() if not ASKS_FOR_MORE.search(error)] == []


def test_every_key_is_on_the_page_and_every_link_leads_somewhere(pages: ModuleType) -> None:
    text = pages.recipe_page()
    for _, section in pages.sections():
        assert all(f"| `{key}` |" in text for key in fields(section))
    anchors = re.findall(r"\{#(\S+)\}", text)
    assert len(anchors) == len(set(anchors))
    assert set(re.findall(r"\]\(#(\S+?)\)", text)) <= set(anchors)


def test_every_command_is_on_the_page(pages: ModuleType) -> None:
    from disttrain.cli.options import COMMANDS

    text = pages.commands_page()
    assert all(f"## disttrain {command}" in text for command in COMMANDS)
