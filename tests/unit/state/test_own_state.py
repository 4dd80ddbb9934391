"""The state of a loop of one's own, in one process: what comes back, and what is refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

import disttrain
from disttrain.checkpoint import Checkpoint, list_checkpoints, load_latest, save_checkpoint
from disttrain.engine.local import LocalEngine
from disttrain.errors import CheckpointError, InputError, NoCheckpointError
from disttrain.state import State
from tests.unit.checkpoint.checkpoint_cases import same


@pytest.fixture
def engine() -> disttrain.Engine:
    return disttrain.init("local", device="cpu")


class Loop:
    """A model in fp16 with everything that remembers something."""

    def __init__(self, engine: LocalEngine, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.model = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5), nn.Linear(3, 1))
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.1)
        warmup = torch.optim.lr_scheduler.LinearLR(self.optimizer, total_iters=3)
        later = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, T_max=5)
        self.schedule = torch.optim.lr_scheduler.SequentialLR(self.optimizer, [warmup, later], milestones=[3])
        self.precision = disttrain.use_precision("fp16", engine.world.device)
        self.average = AveragedModel(self.model)
        self.engine = engine

    def parts(self) -> dict[str, object]:
        names = ("model", "optimizer", "schedule", "precision", "average")
        return {name: getattr(self, name) for name in names}

    def state(self, directory: Path, **more: object) -> State:
        return State(self.engine, directory, **self.parts(), **more)

    def update(self, state: State) -> None:
        self.optimizer.zero_grad()
        with self.precision.forward_context():
            losses = self.model(torch.rand(5, 4)).squeeze(1).float().square()
        self.engine.backward(self.precision.scale(losses), scale=1 / 5)
        self.precision.unscale_(self.optimizer)
        self.precision.step(self.optimizer)
        self.schedule.step()
        self.average.update_parameters(self.model)
        at = state.position
        state.position = disttrain.data.Position(0, at.offset + 5, at.samples + 5, at.updates + 1)
        state.values["last"] = float(losses.detach().sum())

    def everything(self, state: State) -> dict[str, object]:
        parts = {name: part.state_dict() for name, part in self.parts().items()}  # type: ignore[attr-defined]
        return {**parts, "values": state.values, "position": state.position.to_dict()}


def test_all_of_it_comes_back_and_goes_on_to_the_same_bits(engine: LocalEngine, tmp_path: Path) -> None:
    first = Loop(engine)
    with first.state(tmp_path, values={"best": 0.5}) as state:
        assert not state.load()
        for _ in range(4):
            first.update(state)
        state.save()
        for _ in range(3):
            first.update(state)
        expected = first.everything(state)
    second = Loop(engine, seed=9)
    with second.state(tmp_path) as state:
        assert state.load()
        assert state.values["best"] == 0.5
        for _ in range(3):
            second.update(state)
        assert same(second.everything(state), expected)


def test_the_newest_valid_one_is_taken_and_if_none_is_that_is_said(
    engine: LocalEngine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    loop = Loop(engine)
    with loop.state(tmp_path, keep=2) as state:
        for _ in range(3):
            loop.update(state)
            state.save()
        found = list_checkpoints(tmp_path)
        assert list(found) == [3, 2]
        (found[3] / "model.safetensors").write_bytes(b"damaged")
        assert state.load()
        assert state.position.updates == 2
        assert "passed over" in caplog.text
        (found[2] / "MANIFEST.json").unlink()
        with pytest.raises(NoCheckpointError, match="none of the 2 checkpoints is valid"):
            state.load()


def test_one_model_among_others_keeps_its_own_names(engine: LocalEngine, tmp_path: Path) -> None:
    with State(engine, tmp_path, model=nn.Linear(2, 1), critic=nn.Linear(3, 1)) as state:
        state.save()
    assert sorted(load_latest(tmp_path).checkpoint.model) == ["bias", "critic.bias", "critic.weight", "weight"]


def test_a_compiled_model_is_stored_under_the_names_of_the_plain_one(engine: LocalEngine, tmp_path: Path) -> None:
    with State(engine, tmp_path, model=torch.compile(nn.Linear(2, 1))) as state:
        state.save()
    plain = nn.Linear(2, 1)
    with State(engine, tmp_path, model=plain) as state:
        assert state.load()
    assert sorted(load_latest(tmp_path).checkpoint.model) == ["bias", "weight"]


def refused(engine: LocalEngine, directory: Path, **parts: object) -> str:
    with pytest.raises(CheckpointError) as error, State(engine, directory, **parts) as state:
        state.load()
    return str(error.value)


def test_other_parts_are_refused_by_name(engine: LocalEngine, tmp_path: Path) -> None:
    model = nn.Linear(2, 1)
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    with State(engine, tmp_path, model=model, optimizer=sgd) as state:
        state.save()
    assert "was saved with optimizer beside its models, and is to be loaded into nothing" in refused(
        engine, tmp_path, model=model
    )
    assert "into optimizer, schedule" in refused(engine, tmp_path, model=model, optimizer=sgd, schedule=sgd)
    wide = nn.Linear(3, 1)
    assert "model: 1 tensors are not those" in refused(
        engine, tmp_path, model=wide, optimizer=torch.optim.SGD(wide.parameters())
    )
    assert "2 tensors are of no model given" in refused(engine, tmp_path, optimizer=sgd)
    two = torch.optim.SGD([{"params": [p]} for p in model.parameters()], lr=0.1)
    assert "optimizer cannot be continued: ValueError" in refused(engine, tmp_path, model=model, optimizer=two)
    adam = torch.optim.Adam(model.parameters())
    assert "optimizer.param_groups.0" in refused(engine, tmp_path, model=model, optimizer=adam)


def test_a_directory_that_is_not_a_loop_s_is_left_alone(engine: LocalEngine, tmp_path: Path) -> None:
    save_checkpoint(tmp_path, Checkpoint(1, {}, {"progress": 1}), keep=1)
    assert "not those of a loop of one's own" in refused(engine, tmp_path, model=nn.Linear(1, 1))
    (tmp_path / "recipe.yaml").touch()
    with pytest.raises(InputError, match="is the directory of a recipe's run"):
        State(engine, tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="not a directory"):
        State(engine, tmp_path / "file" / "below")


def test_parts_without_a_state_and_models_of_one_name_are_refused(engine: LocalEngine, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="best is a float, which has no state_dict"):
        State(engine, tmp_path, best=0.5)
    outer = nn.ModuleDict({"inner": nn.Linear(1, 1)})
    with pytest.raises(InputError, match="tensors of the same name"):
        State(engine, tmp_path, model=outer, inner=nn.Linear(1, 1))


def test_a_value_that_cannot_be_saved_leaves_nothing_behind(engine: LocalEngine, tmp_path: Path) -> None:
    with (
        State(engine, tmp_path, values={"what": {1.5}}) as state,
        pytest.raises(CheckpointError, match=r"what: a builtins\.set cannot be saved"),
    ):
        state.save()
    assert list_checkpoints(tmp_path) == {}
