"""The site builds, no link in it leads nowhere, and it loads nothing from elsewhere."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from tests.harness import ROOT, environment, where

LOADED = re.compile(r'<(?:script|img|iframe|link)[^>]*?(?:src|href)="(https?://[^"]*)"')


def test_the_site(tmp_path: Path) -> None:
    """``strict: true`` in mkdocs.yml makes every warning an error: links, anchors, pages that are not in the navigation."""
    done = subprocess.run(
        [str(where("mkdocs")), "build", "--quiet", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        env=environment({"NO_MKDOCS_2_WARNING": "1"}),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > 10
    assert [found for page in pages for found in LOADED.findall(page.read_text())] == []
