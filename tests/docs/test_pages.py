"""Every code block and every recipe in the documentation works; what needs a cluster says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.blocks import NOT_RUN, RUNNABLE, blocks, check_excerpt, pages, run
from tests.harness import ROOT

WITH_CODE = [page for page in pages() if any(block.language in RUNNABLE for block in blocks(page.read_text()))]

# Pages with whole jobs in them.
LONG = ("howto", "coming_from", "docs")
PAGES = [pytest.param(page, marks=[pytest.mark.slow] if page.parent.name in LONG else []) for page in WITH_CODE]


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in WITH_CODE])
def test_the_blocks_of_a_page_run(page: Path, tmp_path: Path) -> None:
    for block in blocks(page.read_text()):
        run(block, tmp_path, str(page.relative_to(ROOT)))


def test_a_wrong_block_is_found(tmp_path: Path) -> None:
    found = list(blocks('```python\nassert 1 == 2\n```\n    ```yaml title="excerpt"\n    batch: {globl: 3}\n    ```\n'))
    assert [block.language for block in found] == ["python", "yaml"]
    with pytest.raises(AssertionError, match="exit code 1"):
        run(found[0], tmp_path, "page")
    with pytest.raises(pytest.fail.Exception, match="globl"):
        check_excerpt(found[1].code, tmp_path, "page")


def test_few_blocks_are_left_out() -> None:
    every = [block for page in pages()[1:] for block in blocks(page.read_text()) if block.language in RUNNABLE]
    assert sum(block.title in NOT_RUN for block in every) <= len(every) / 4
