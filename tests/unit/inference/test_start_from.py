"""Weights to begin with: what is taken, what is refused, and what is said of it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from disttrain.checkpoint import Checkpoint, load_latest, save_checkpoint
from disttrain.config.sections.fine_tune import StartFrom
from disttrain.errors import InputError
from disttrain.inference import choice
from disttrain.inference.start import start_from


class Net(nn.Module):
    """A body and a head; the output layer may be the embedding's weight."""

    def __init__(self, classes: int = 3, *, tied: bool = False) -> None:
        super().__init__()
        self.tokens = nn.Embedding(5, 4)
        self.body = nn.Linear(4, 4)
        self.head = nn.Linear(4, classes, bias=False)
        if tied:
            self.head.weight = self.tokens.weight


def saved(folder: Path, state: dict[str, torch.Tensor], name: str = "w.safetensors") -> str:
    path = folder / name
    if path.suffix == ".safetensors":
        safetensors.torch.save_file({k: t.clone() for k, t in state.items()}, path, {"format": "pt"})
    else:
        torch.save(state, path)
    return str(path)


def refusal(model: nn.Module, path: str, **settings: object) -> str:
    with pytest.raises(InputError) as caught:
        start_from(model, StartFrom.model_validate({"path": path, **settings}))
    text = str(caught.value)
    assert text.startswith(f"start_from {path}: ")
    return text.removeprefix(f"start_from {path}: ")


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt", "w.bin"])
def test_a_file_is_taken_whole_and_told_of(name: str, tmp_path: Path) -> None:
    theirs, mine = Net(), Net()
    path = saved(tmp_path, theirs.state_dict(), name)
    event = start_from(mine, StartFrom(path=path))
    assert all(torch.equal(a, b) for a, b in zip(theirs.parameters(), mine.parameters(), strict=True))
    assert event["sha256"] == hashlib.sha256(Path(path).read_bytes()).hexdigest()
    assert event["taken"] == list(theirs.state_dict())
    assert event["missing"] == event["left"] == []
    assert event["message"] == f"{path}: 4 tensors taken"


def test_a_new_head_is_one_line(tmp_path: Path) -> None:
    theirs, mine = Net(10), Net(3)
    head = mine.head.weight.clone()
    event = start_from(mine, StartFrom(path=saved(tmp_path, theirs.state_dict()), exclude=["head.*"]))
    assert torch.equal(mine.head.weight, head)
    assert torch.equal(mine.body.weight, theirs.body.weight)
    assert (event["missing"], event["left"]) == (["head.weight"], ["head.weight"])
    assert "1 missing, which keep their initial values: head.weight; 1 left out: head.weight" in event["message"]


def test_prefixes_come_off_and_on(tmp_path: Path) -> None:
    theirs, mine = Net(), nn.ModuleDict({"net": Net()})
    stored = {f"module.{name}": tensor for name, tensor in theirs.state_dict().items()}
    start_from(mine, StartFrom(path=saved(tmp_path, stored), strip="module.", rename={"": "net."}))
    assert torch.equal(mine["net"].body.weight, theirs.body.weight)
    moved = {name.replace("body", "trunk"): tensor for name, tensor in theirs.state_dict().items()}
    fresh = Net()
    start_from(fresh, StartFrom(path=saved(tmp_path, moved), rename={"trunk.": "body."}))
    assert torch.equal(fresh.body.bias, theirs.body.bias)
    assert refusal(fresh, saved(tmp_path, moved), strip="module.").startswith(
        "no tensor's name begins with 'module.'; there"
    )


def test_another_models_state_dict_is_refused_with_a_list(tmp_path: Path) -> None:
    mine = Net()
    before = {name: tensor.clone() for name, tensor in mine.state_dict().items()}
    stored = {**Net(7).state_dict(), "pooler.weight": torch.ones(2)}
    del stored["body.bias"]
    said = refusal(mine, saved(tmp_path, stored))
    assert said.startswith(
        "2 of the model's 4 tensors fit; 1 missing: body.bias; 1 unexpected: pooler.weight; "
        "1 of another shape: head.weight 7x4 for 3x4"
    )
    assert all(torch.equal(tensor, mine.state_dict()[name]) for name, tensor in before.items())
    event = start_from(mine, StartFrom(path=saved(tmp_path, stored), strict=False))
    assert event["taken"] == ["tokens.weight", "body.weight"]
    assert (event["missing"], event["left"]) == (["body.bias", "head.weight"], ["head.weight", "pooler.weight"])
    nothing = {"x": torch.ones(1)}
    assert refusal(mine, saved(tmp_path, nothing), strict=False).startswith("0 of the model's 4 tensors fit; 4 missing")
    assert "is it the file of another model?" in refusal(mine, saved(tmp_path, nothing))


def test_a_pattern_that_matches_nothing_is_a_mistake(tmp_path: Path) -> None:
    path = saved(tmp_path, Net().state_dict())
    assert refusal(Net(), path, exclude=["haed.*"]) == "no tensor matches 'haed.*'; there are head.weight"


def test_tied_tensors_are_stored_under_one_name(tmp_path: Path) -> None:
    theirs, mine = Net(5, tied=True), Net(5, tied=True)
    stored = {name: tensor for name, tensor in theirs.state_dict().items() if name != "head.weight"}
    event = start_from(mine, StartFrom(path=saved(tmp_path, stored)))
    assert event["missing"] == []
    assert torch.equal(mine.head.weight, theirs.tokens.weight)
    untied = Net(5).state_dict()
    said = refusal(mine, saved(tmp_path, untied))
    assert said == "tokens.weight and head.weight are one tensor in this model, and differ there: exclude one of them"


def test_precisions_are_converted_and_numbers_are_finite(tmp_path: Path) -> None:
    theirs = Net()
    half = {name: tensor.bfloat16() for name, tensor in theirs.state_dict().items()}
    mine = Net().double()
    start_from(mine, StartFrom(path=saved(tmp_path, half)))
    assert torch.equal(mine.body.weight, half["body.weight"].double())
    theirs.body.weight.data[0, 0] = torch.nan
    assert refusal(mine, saved(tmp_path, theirs.state_dict())) == (
        "body.weight has numbers that are not finite in torch.float64"
    )


@pytest.mark.parametrize("key", ["state_dict", "model"])
def test_a_state_dict_among_other_things(key: str, tmp_path: Path) -> None:
    theirs, mine = Net(), Net()
    found = {key: theirs.state_dict(), "epoch": 3, "optimizer": {"state": {}}}
    start_from(mine, StartFrom(path=saved(tmp_path, found, "w.pth")))  # type: ignore[arg-type]
    assert torch.equal(mine.body.weight, theirs.body.weight)


class Payload:
    """Would leave a mark if a file could have it made."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        import os

        return os.system, ("touch /tmp/disttrain-was-here",)


def test_files_that_are_no_state_dict(tmp_path: Path) -> None:
    def said(content: object, name: str = "w.pt") -> str:
        torch.save(content, tmp_path / name)
        return refusal(Net(), str(tmp_path / name))

    assert said({"state_dict": Net().state_dict(), "model": Net().state_dict()}).startswith(
        "it holds several state dicts (state_dict, model)"
    )
    assert said({"epoch": 3}).startswith("it holds no state dict, but epoch; expected one, by itself or below")
    assert said([1, 2]).startswith("it holds no state dict, but a list")
    assert said({"a": Payload()}).startswith("it is no state dict of tensors alone: what else it holds would run code")
    assert not Path("/tmp/disttrain-was-here").exists()
    (tmp_path / "w.pt").write_bytes(b"PK nothing")
    assert refusal(Net(), str(tmp_path / "w.pt"))
    (tmp_path / "w.safetensors").write_bytes(b"\x08")
    assert refusal(Net(), str(tmp_path / "w.safetensors")).startswith("it cannot be read as safetensors")
    (tmp_path / "w.npz").write_bytes(b"")
    assert refusal(Net(), str(tmp_path / "w.npz")).startswith(
        "expected a run directory, or a file that ends in .safetens"
    )


def test_what_is_not_there(tmp_path: Path) -> None:
    assert refusal(Net(), str(tmp_path / "w.pt")) == "there is no such file or run directory"
    assert "there is no checkpoint" in refusal(Net(), str(tmp_path))
    path = saved(tmp_path, Net().state_dict())
    assert refusal(Net(), path, which="best") == "which: best goes with a run directory, and this is a file"


def test_a_run_directory_is_read_once_and_needs_no_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, mine = Net(), Net()
    loop = {"position": {}, "values": {}, "parts": {}, "ranks": []}  # what a loop of one's own keeps
    save_checkpoint(tmp_path, Checkpoint(3, theirs.state_dict(), loop), keep=1)
    reads: list[Path] = []
    monkeypatch.setattr(choice, "load_latest", lambda path: (reads.append(path), load_latest(path))[1])
    event = start_from(mine, StartFrom(path=str(tmp_path)))
    assert torch.equal(mine.body.weight, theirs.body.weight)
    manifest = tmp_path / "checkpoints/step-00000003/MANIFEST.json"
    assert (reads, event["sha256"]) == ([tmp_path], hashlib.sha256(manifest.read_bytes()).hexdigest())
    plain = {"methods": {}, "progress": {}}
    save_checkpoint(tmp_path, Checkpoint(4, theirs.state_dict(), plain), keep=1)
    assert "keeps no average" in refusal(mine, str(tmp_path), which="average")
