"""How disttrain scales here, what of a step its parts explain, and whether the model of the exchange knows what it has not seen.

    python benchmarks/scaling.py machine           # 1, 2 and 4 ranks of this machine, two recipes
    python benchmarks/scaling.py hosts             # two to four imitation hosts with links of 0.1, 0.3 and 1 Gbit/s; needs root
    python benchmarks/scaling.py told              # the tables of scaling.md, from scaling.json

Every launch is kept in ``runs/benchmark_scaling``; a killed benchmark goes on. The imitation hosts are those of
``tests/imitation_hosts.py``, all on the cores of this machine.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from disttrain.scaling.exchange import Ring, fit_ring
from disttrain.scaling.record import Exchanged, load
from disttrain.scaling.words import PARTS, THROUGHPUT, parts, throughput

JSON = Path(__file__).with_suffix(".json")
PLACE = Path("runs/benchmark_scaling")
SIZE = ["task.name=synthetic", "task.classes=10", "task.shape=[1,28,28]", "task.train_samples=20000"]
RECIPES = {
    "mlp": [*SIZE, "model={name: mlp, hidden: [1024, 1024]}", "batch.global=256", "name=mlp", "--mode", "both"],
    "convnet": [*SIZE, "model={name: convnet}", "batch.global=64", "name=convnet", "--mode", "weak"],
}
SENT = [*SIZE, "model={name: mlp, hidden: [512, 512]}", "batch.global=256", "name=hosts"]
"""What hosts train: 2.7 MB of gradients."""
LINKS = {"100mbit": 1e8, "300mbit": 3e8, "1gbit": 1e9}
FITTED_LINKS, FITTED_SIZES = (1e8, 1e9), (2**10, 2**20, 2**22)
"""What the model is fitted to, on two hosts; all else is held out."""
BURST = 2e-3
"""Seconds of a link that the imitation lets through at once. All-reduces of less than four bursts are not those of the link."""


def machine() -> None:
    """Scalings on this machine."""
    for name, recipe in RECIPES.items():
        command = ["scale", *recipe, "--ranks", "1,2,4", "--repeats", "1", "--windows", "20", "--to", str(PLACE / name)]
        subprocess.run([sys.executable, "-m", "disttrain", *command], check=True)
        _keep(name, load(PLACE / name), PLACE / name)


def hosts() -> None:
    """Scalings on imitation hosts, and all-reduces on more of them."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from tests.imitation_hosts import Hosts, missing

    if why := missing():
        sys.exit(f"no imitation hosts: this machine {why}")
    for link, number in [*((link, 2) for link in LINKS), ("100mbit", 3), ("100mbit", 4)]:
        name = f"{number} hosts, {link}"
        place = PLACE / name.replace(", ", "-").replace(" ", "-")
        ranks = f"1,{number}"
        with Hosts(number, LINKS[link]) as made:
            words = [sys.executable, "-m", "disttrain", "scale", *SENT, "--hosts", ",".join(made.names), "--link", link]
            options = f"--ranks {ranks} --windows 10 --repeats {2 if number == 2 else 1} --mode weak --to {place}"
            words += options.split()
            done = made.run("node0", words, dict(os.environ), timeout=3600)
        print(done.stdout, done.stderr, sep="")
        if done.returncode:
            sys.exit(done.returncode)
        _keep(name, load(place), place)


def _keep(name: str, found: Any, place: Path) -> None:
    """The scaling, and every launch's own windows, in the JSON file."""
    kept = json.loads(JSON.read_text()) if JSON.exists() else {}
    launches = {path.stem: json.loads(path.read_text()) for path in sorted((place / "launches").glob("*.json"))}
    kept[name] = {"scale": json.loads((place / "scale.json").read_text()), "launches": _rounded(launches)}
    JSON.write_text(json.dumps(kept, separators=(",", ":")).replace('},"', '},\n"') + "\n")


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_rounded(each) for each in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def told() -> None:
    """Print the tables."""
    kept = json.loads(JSON.read_text())
    for name in kept:
        place = PLACE / "told"
        place.mkdir(parents=True, exist_ok=True)
        (place / "scale.json").write_text(json.dumps(kept[name]["scale"]))
        found = load(place)
        print(f"\n### {name}\n")
        _table(THROUGHPUT, throughput(found))
        _table(PARTS, parts(found))
        print(*(f"- {words}" for words in found.words), sep="\n")
    held_out(kept)


def _table(headings: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> None:
    print(f"| {' | '.join(headings)} |", f"|{'---|' * len(headings)}", sep="\n")
    print(*(f"| {' | '.join(row)} |" for row in rows), "", sep="\n")


def held_out(kept: dict[str, Any]) -> None:
    """All-reduces that the model has not seen, against what it says of them."""
    measured = [
        Exchanged(**m) for name, each in kept.items() if "hosts" in name for m in each["scale"]["exchange"]["measured"]
    ]
    seen = [m for m in measured if m.ranks == 2 and m.link_bits_per_second in FITTED_LINKS and m.bytes in FITTED_SIZES]
    ring = fit_ring(seen)
    if ring is None:
        return
    print(f"\n### The model\n\n{ring}\n")
    rest = [m for m in measured if m not in seen and m.bytes >= 4 * (m.link_bits_per_second or 0) / 8 * BURST]
    _table(("ranks", "link, Gbit/s", "bytes", "measured, ms", "model, ms", "off by", "A/A"), _off(ring, rest, kept))


def _off(ring: Ring, rest: list[Exchanged], kept: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    for m in sorted(rest, key=lambda m: (m.ranks, m.link_bits_per_second or 0, m.bytes)):
        said = ring.seconds(m.bytes, m.ranks, m.link_bits_per_second)
        link = (m.link_bits_per_second or 0) / 1e9
        yield (
            str(m.ranks),
            f"{link:g}",
            f"{m.bytes:,}",
            f"{m.seconds * 1e3:.3g}",
            f"{said * 1e3:.3g}",
            f"{said / m.seconds - 1:+.1%}",
            f"{_again(m, kept):.1%}",
        )


def _again(m: Exchanged, kept: dict[str, Any]) -> float:
    """How far the median of the odd windows is from that of the even ones."""
    values = [
        window[str(m.bytes)]
        for name, each in kept.items()
        if "hosts" in name and each["scale"]["environment"]["link_bits_per_second"] == m.link_bits_per_second
        for launch in each["launches"].values()
        if launch["ranks"] == m.ranks
        for window in launch["exchange"]
    ]
    return abs(statistics.median(values[::2]) / statistics.median(values[1::2]) - 1)


if __name__ == "__main__":
    {"machine": machine, "hosts": hosts, "told": told}[sys.argv[1]]()
