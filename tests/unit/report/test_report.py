"""A page of what was measured: its verdict, what it shows, what it must not hold, and what it refuses."""

from __future__ import annotations

import html.parser
import json
import math
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from disttrain.cli.report import report
from disttrain.config import dump_recipe, load_recipe
from disttrain.errors import InputError
from disttrain.report.judge import verdict
from disttrain.report.run import read_run
from tests.harness import ROOT

EVIL = "</title><script>alert(1)</script> $x_1$ \x1b[31m"
STUDY = ROOT / "benchmarks" / "critical_batch_study"
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
VOID = {"meta", "link", "br", "hr", "img", "input"}


def run_dir(place: Path, *words: str, tail: float = 0.0, state: str | None = "finished", **line: Any) -> Path:
    """A run of 40 updates of 64 samples, as it is written: the test loss falls and rises by ``tail`` at its end."""
    place.mkdir(parents=True)
    (place / "recipe.yaml").write_text(dump_recipe(load_recipe(None, list(words))))
    records: list[Mapping[str, Any]] = [
        {"event": "start", "step": 0, "ranks": 1, "engine": "local", "global_batch": 64}
    ]
    for step in range(2, 42, 2):
        at = {"step": step, "epoch": step / 20, "samples": 64 * step}
        loss = 2.0 * math.exp(-step / 15) + 0.1
        numbers = {"loss": loss, "lr": 0.1, "grad_norm": loss, "samples_per_second": 640.0}
        records.append({**at, **numbers, **line})
        if step % 10 == 0:
            records.append({**at, "split": "test", "loss": loss + 0.1 + tail * (step == 40), "accuracy": 1 - loss / 3})
    if state is not None:
        records.append({"event": "end", "state": state, "step": 40, "message": "the disk is full"})
    (place / "metrics.jsonl").write_text(
        "".join(json.dumps({**r, "time": "2026-11-21T10:00:00.000Z"}) + "\n" for r in records)
    )
    return place


def page_of(*places: Path, to: Path, by: str = "samples") -> str:
    report(list(places), to, by)
    return to.read_text()


class Checker(html.parser.HTMLParser):
    """Elements that are open, and whatever should not be in a page."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.look(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.look(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(f"</{tag}> at {self.getpos()}")

    def look(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("script", "iframe", "object", "embed", "link", "base", "form"):
            self.wrong.append(f"<{tag}>")
        for name, value in attrs:
            self.ids += [value or ""] if name == "id" else []
            outside = name in ("src", "href", "xlink:href", "srcset", "action") and not (value or "").startswith(
                ("#", "data:")
            )
            if name.startswith("on") or outside:
                self.wrong.append(f"{name}={value!r}")


def check_page(text: str) -> None:
    """One file that is well formed, small, and brings in nothing; all that ids are referred to by is there, once."""
    checker = Checker()
    checker.feed(text)
    checker.close()
    assert (checker.wrong, checker.open) == ([], [])
    assert len(checker.ids) == len(set(checker.ids))
    assert set(re.findall(r'(?:url\(|href=")#([^)"]+)', text)) <= set(checker.ids)
    assert not re.search(r"https?:|@import|url\((?!#)|<script|\x1b", text)
    assert len(text.encode()) < 3_000_000
    drawings = re.findall(r'role="img" aria-label="([^"]*)"', text)
    assert text.count("<svg") == len(drawings)
    assert all(len(said) > 20 for said in drawings)


def test_a_run_is_told_with_everything_of_it_as_text(tmp_path: Path) -> None:
    place = run_dir(
        tmp_path / "<script>alert(1) $run$",
        "trainable=['<script>alert(1)']",
        noise_scale=320.0,
        noise_scale_low=200.0,
        noise_scale_high=500.0,
        trust_ratio={f"{EVIL}{i}": 0.5 + i for i in range(3)},
    )
    with (place / "metrics.jsonl").open("a") as file:
        file.write('{"step": 44, "loss": ')  # a kill cut it off
    (place / "log").mkdir()
    (place / "log" / "rank-0.log").write_text(f"2026-11-21T10:00:00.000Z rank 0 WARNING {EVIL}\n")
    before = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    text = page_of(place, to=tmp_path / "page.html")
    check_page(text)
    said = "Trained well: test accuracy 92.03 %; batch 64 is 5x below critical at the end (200 to 500, by the noise scale)."
    head, _, body = text.partition("<body>")
    assert said in head
    assert said.replace(" %", "\N{NO-BREAK SPACE}%") in "".join(body.splitlines()[:8])
    for words in (
        "Training loss",
        "Evaluated accuracy",
        "Noise scale",
        "Trust ratio by layer",
        "Throughput",
        "warning",
    ):
        assert words in body
    assert "&lt;script&gt;" in body
    assert "one seed" in body
    again = page_of(place, to=tmp_path / "again.html")
    assert again == text
    assert before == {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}


def test_the_verdict_says_what_happened_and_what_is_not_known(tmp_path: Path) -> None:
    def said(name: str, **how: Any) -> str:
        return verdict(read_run(run_dir(tmp_path / name, **how)), None).sentence

    assert said("well") == "Trained well: test accuracy 92.03 %."
    assert said("over", tail=1.0).startswith(
        "Overfitted: the test loss ends 184 % above its least, which was at update 30"
    )
    assert said("stopped", state="stopped").startswith("Stopped on request after update 40")
    assert said("failed", state="failed").startswith("Failed at update 40: the disk is full; learning well so far")
    assert said("open", state=None).startswith("Not finished: the last line is of update 40")
    assert "20 lines have numbers that are not finite" in said("nan", grad_norm=math.nan)
    assert said("flat", loss=2.3).startswith("Nothing learned yet: the training loss went from 2.3 to 2.3")
    noise = {"noise_scale": 10.0, "noise_scale_low": 5.0}
    assert said("above", **noise, noise_scale_high=20.0).endswith(
        "batch 64 is 6.4x above critical at the end (5 to 20, by the noise scale)."
    )
    assert said("near", **noise, noise_scale_high=99.0).endswith(
        "batch 64 is about critical at the end (5 to 99, by the noise scale)."
    )
    grown = run_dir(tmp_path / "grown", **noise, noise_scale_high=20.0)
    last = '"step": 40, "epoch": 2.0, "samples": 2560, "loss"'
    lines = (grown / "metrics.jsonl").read_text().splitlines()
    raised = [
        line.replace("5.0", "500.0").replace("20.0", "999.0").replace("10.0,", "700.0,") if last in line else line
        for line in lines
    ]
    (grown / "metrics.jsonl").write_text("\n".join(raised))
    told = "batch 64 is 11x below critical at the end (500 to 999, by the noise scale), and was above it for 95 % of the run."
    assert verdict(read_run(grown), None).sentence.endswith(told)
    unknown = verdict(read_run(run_dir(tmp_path / "lower", **noise, noise_scale_high=None)), None).unknown
    assert "how the batch compares with the critical one: only that that is at least 5 (by the noise scale)" in unknown
    assert any("was not measured" in words for words in verdict(read_run(tmp_path / "well"), None).unknown)


def test_two_runs_are_compared(tmp_path: Path) -> None:
    first, second = run_dir(tmp_path / "a"), run_dir(tmp_path / "b", "optimizer.lr=0.05")
    lines = (second / "metrics.jsonl").read_text().splitlines()
    changed = [
        json.dumps(r | {"loss": r["loss"] * 2} if r.get("step", 0) > 20 and "loss" in r else r)
        for r in map(json.loads, lines)
    ]
    (second / "metrics.jsonl").write_text("\n".join(changed) + "\n")
    for by, axis in (("samples", "samples"), ("updates", "updates"), ("time", "seconds of training")):
        text = page_of(first, second, to=tmp_path / "page.html", by=by)
        check_page(text)
        assert f"Training loss over {axis}. a: from" in text
    assert "The runs a and b differ in optimizer.lr (0.2 against 0.05)" in text
    assert "their training losses part at update 22, equal up to update 20" in text
    assert re.search(r'rowheader" data-of="key">optimizer.lr</th><td[^>]*>0.2</td><td[^>]*>0.05</td>', text)


def test_branches_and_a_plan_stand_with_their_run(tmp_path: Path) -> None:
    place = run_dir(tmp_path / "run")
    (place / "branches").mkdir()
    crossing = {"where": "between", "batch": 256.0, "low": 128.0, "high": None}
    point = {
        "step": 20,
        "start": 1280,
        "batch": 64,
        "losses": {"1": [1.0, 1.1], "4": [1.2, None]},
        "crossing": crossing,
    }
    branched = {"margin": 0.01, "repeats": 2, "points": [{**point, "words": "critical batch 256"}]}
    (place / "branches" / "critical_batch.json").write_text(json.dumps(branched))
    ends = {"value": 10.0, "low": 9.0, "high": None}
    numbers = dict.fromkeys(("updates", "samples", "samples_per_second", "seconds", "gpu_hours"), ends)
    option = {"ranks": 4, "batch": 256, "rate": 0.1, "origin": "forecast", **numbers}
    plan = {"version": 1, "words": ["4 ranks with batch 256"], "advice": option, "front": [option]}
    (place / "plan.json").write_text(json.dumps(plan))
    text = page_of(place, to=tmp_path / "page.html")
    check_page(text)
    assert "batch 64 is at least 2x below critical at the end (by branches)" in text
    for words in ("Loss above that of the run", "4 ranks with batch 256.", "10 (forecast)", "advised"):
        assert words in text
    alone = page_of(place / "branches", to=tmp_path / "page.html")
    check_page(alone)
    assert "Critical batch 256." in alone


def interval(median: float) -> dict[str, float]:
    return {"median": median, "low": 0.9 * median, "high": 1.1 * median}


def scaling(place: Path, **more: Any) -> Path:
    def one(ranks: int, speed: float) -> dict[str, Any]:
        step = 512 / speed
        parts = dict.fromkeys(("compute", "data", "stragglers", "optimizer", "interpreter", "unexplained"), 0.1 * step)
        split = parts | {"compute": 0.27 * step, "exchange": 0.23 * step}
        about = {"mode": "strong", "ranks": ranks, "hosts": 1, "engine": "ddp", "global_batch": 512}
        return about | {"samples_per_second": interval(speed), "step_seconds": interval(step), "split": split}

    found = {
        "version": 1,
        "name": "fashion",
        "recipe": {"name": EVIL},
        "environment": {"torch": "2.13"},
        "parameters_bytes": 400_000,
        "runs": [one(1, 1000.0), one(4, 3100.0)],
        "exchange": None,
        "forecast": [{"mode": "strong", "ranks": 64, "global_batch": 512, "samples_per_second": interval(30_000.0)}],
        "words": ["most of the rest is communication"],
    }
    place.mkdir()
    (place / "scale.json").write_text(json.dumps(found | more))
    return place


def test_a_scaling(tmp_path: Path) -> None:
    measured = [
        {"ranks": 4, "hosts": 1, "link_bits_per_second": None, "bytes": 10**n, "seconds": 1e-9 * 10**n} for n in (3, 6)
    ]
    model = {"alpha_seconds": 1e-5, "alpha_interval": interval(1e-5), "seconds_per_byte": 1e-9, "error": 0.07}
    exchange = {**model, "seconds_per_byte_interval": interval(1e-9), "measured": measured}
    text = page_of(scaling(tmp_path / "scale", exchange=exchange), to=tmp_path / "page.html")
    check_page(text)
    assert (
        "Strong scaling: 4 ranks are 3.1x as fast as 1 (2.5x to 3.8x), 78 % of ideal; communication costs 23 % at 4 ranks"
        in text
    )
    for words in (
        "ideal",
        "unexplained",
        "Forecast, not measured",
        "All-reduces",
        "most of the rest is communication.",
    ):
        assert words.capitalize() in text or words in text


def test_the_study_of_fashion_mnist_and_several_kinds_on_one_page(tmp_path: Path) -> None:
    text = page_of(STUDY, scaling(tmp_path / "scale"), to=tmp_path / "page.html")
    check_page(text)
    body = text.partition("<body>")[2]
    assert "Critical batch 409 (295 to 577); batch 32 reaches" in "".join(body.splitlines()[:8])
    for words in (
        "Samples to the target",
        "What is paid for fewer updates",
        "Sharpness",
        "hyperbola",
        "Strong scaling",
    ):
        assert words in body


def damaged(place: Path) -> Iterator[tuple[Path, str]]:
    """Directories, and what is said of them."""
    yield place / "none", "there is no such directory"
    (place / "file").write_text("")
    yield place / "file", "is no directory"
    (place / "empty").mkdir()
    yield place / "empty", "holds nothing to report"
    unbegun = run_dir(place / "unbegun")
    (unbegun / "metrics.jsonl").write_text('{"event": "start", "step": 0}\n')
    yield unbegun, "no training line yet"
    later = run_dir(place / "later")
    (later / "recipe.yaml").write_text("# disttrain 9.0\nepochs: 3\nnovelty: 1\n")
    yield later, "novelty"
    shutil.copytree(STUDY, place / "study")
    (place / "study" / "study.json").write_text('{"disttrain": "9.0", "target": {}}')
    yield place / "study", "is of disttrain 9.0 and not in the form of"
    (place / "begun").mkdir()
    (place / "begun" / "settings.json").write_text("{}")
    yield place / "begun", "the study is not finished"
    yield scaling(place / "scale", version=2), "version 2"
    yield scaling(place / "idle", runs=[]), "there is no run in it"
    (place / "branches").mkdir()
    (place / "branches" / "critical_batch.json").write_text("[]")
    yield place / "branches", "run disttrain branch again"
    planned = run_dir(place / "planned")
    (planned / "plan.json").write_text("{}")
    yield planned, "plan again"


def test_what_is_refused_leaves_every_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good, to = run_dir(tmp_path / "good"), tmp_path / "page.html"
    to.write_text("an earlier page")
    cases = list(damaged(tmp_path))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for place, words in cases:
        with pytest.raises(InputError, match=re.escape(words)):
            report([good, place], to, "samples")
    for target, words in ((tmp_path, "it is a directory"), (tmp_path / "no" / "page.html", "there is no directory")):
        with pytest.raises(InputError, match=words):
            report([good], target, "samples")
    with pytest.raises(InputError, match="expected samples, updates or time"):
        report([good], to, "epochs")
    with pytest.raises(InputError, match="no line that says how fast"):
        report([run_dir(tmp_path / "timeless", samples_per_second=None)], to, "time")
    shutil.rmtree(tmp_path / "timeless")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(InputError, match=re.escape('pip install "disttrain[report]"')):
        report([good], to, "samples")
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_a_metrics_file_of_anything(tmp_path: Path) -> None:
    place = run_dir(
        tmp_path / "run", loss_nonfinite="nan", strange="text", huge=10**400, deep={"a": {"b": [1]}}, yes=True
    )
    with (place / "metrics.jsonl").open("a") as file:
        file.write(
            '[1]\n{"step": 43, "loss": Infinity, "samples": 2752}\n{"step": true}\n\xff\n{"split": 3, "step": 4}\n'
        )
        file.write(
            f'{{"step": {10**400}, "loss": 1}}\n{{"event": "batch", "global_batch": {10**400}, "from_update": 1}}\n'
        )
        file.write('{"event": 7}\n{"step": 44, "samples": NaN, "loss": 0.2}\n')
    check_page(page_of(place, to=tmp_path / "page.html", by="time"))


def in_browser(page: Path, *options: str) -> str:
    """The page as a browser has read it."""
    assert BROWSER is not None
    words = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", *options, page.as_uri()]
    return subprocess.run(words, capture_output=True, text=True, timeout=120, check=True).stdout


NEEDS_BROWSER = pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
MEASURE = """<body><iframe src="{page}" style="width: 400px; height: 900px; border: 0" onload="
document.title = this.contentDocument.documentElement.scrollWidth + ' ' + this.contentDocument.querySelector('.verdict').innerText
"></iframe></body>"""


@NEEDS_BROWSER
@pytest.mark.slow
@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "reports").glob("*.html")), ids=lambda page: str(page.stem))
def test_a_browser_reads_the_verdict_and_a_phone_does_not_scroll_sideways(page: Path, tmp_path: Path) -> None:
    check_page(page.read_text())
    (tmp_path / "frame.html").write_text(MEASURE.format(page=page.as_uri()))
    title = re.search(
        r"<title>(.*?)</title>",
        in_browser(tmp_path / "frame.html", "--allow-file-access-from-files", "--hide-scrollbars"),
        re.S,
    )
    assert title is not None
    width, _, said = title[1].partition(" ")
    assert int(width) == 400
    stated = re.search(r'name="description" content="([^"]*)"', page.read_text())
    assert stated is not None
    assert html.unescape(said).replace("\N{NO-BREAK SPACE}", " ") in html.unescape(stated[1])


@NEEDS_BROWSER
def test_a_browser_reads_the_verdict_of_a_run(tmp_path: Path) -> None:
    page_of(run_dir(tmp_path / "run"), to=tmp_path / "page.html")
    assert re.search(
        r'<p class="verdict">Trained well: test accuracy 92.03\S+%\.</p>', in_browser(tmp_path / "page.html")
    )
