"""The gate of set-up: one mistake is one message on every rank, whatever the class of the error and wherever it was raised."""

from __future__ import annotations

import inspect
import pickle
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from disttrain import errors
from disttrain.config import load_recipe
from disttrain.config.reading.problems import Problem, RecipeError
from disttrain.engine import agreement
from disttrain.engine.agreement import everyone, on_main, require_agreement
from disttrain.errors import DisttrainError, InputError, NoCheckpointError, RankError, UserCodeError
from tests.unit.engine.gate_ranks import ThreadEngine, on_ranks

KINDS = [k for k in vars(errors).values() if inspect.isclass(k) and issubclass(k, DisttrainError)]


class Odd(InputError):
    """An error of somebody's own that cannot be made again from its text."""

    def __init__(self, number: int, *, why: str) -> None:
        super().__init__(f"{number} is odd: {why}")


def wrong(engine: ThreadEngine) -> None:
    raise InputError("lr is negative")


def test_a_recipe_error_travels_with_its_problems(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("task: {name: digits}\noptimizer: {name: sgd, lr: fast}\n")
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    again = pickle.loads(pickle.dumps(caught.value))
    assert again.problems == caught.value.problems
    assert str(again) == str(caught.value)

    def load(engine: ThreadEngine) -> object:
        return on_main(engine, lambda: load_recipe(path))

    for error in on_ranks(3, load):
        assert type(error) is RecipeError
        assert error.everywhere
        assert [(p.line, p.key) for p in error.problems] == [(p.line, p.key) for p in caught.value.problems]


@pytest.mark.parametrize("kind", KINDS)
def test_all_classes_pass_alike(kind: type[DisttrainError]) -> None:
    def fail(engine: ThreadEngine) -> None:
        def action() -> None:
            raise kind("said once")

        everyone(engine, action)

    for error in on_ranks(2, fail):
        assert (type(error), str(error), error.everywhere) == (kind, "said once", True)


def test_a_class_that_does_not_pickle_keeps_text_and_exit_code() -> None:
    def fail(engine: ThreadEngine) -> None:
        def action() -> None:
            raise Odd(3, why="not divisible by two")

        everyone(engine, action)

    for error in on_ranks(2, fail):
        assert (type(error), str(error)) == (InputError, "3 is odd: not divisible by two")


def test_an_error_of_some_ranks_names_them_and_their_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agreement.socket, "gethostname", lambda: "node7")

    def fail(engine: ThreadEngine) -> None:
        def action() -> None:
            if engine.world.rank in (1, 2):
                raise RecipeError([Problem("a.yaml", "", "there is no such file")])

        everyone(engine, action)

    for error in on_ranks(4, fail):
        assert (type(error), str(error)) == (InputError, "ranks 1-2: a.yaml: there is no such file")
    for error in on_ranks(4, fail, local_size=2):
        assert str(error) == "ranks 1-2 on node7: a.yaml: there is no such file"


def test_different_errors_are_both_said() -> None:
    def fail(engine: ThreadEngine) -> None:
        def action() -> None:
            raise NoCheckpointError("none") if engine.world.rank == 0 else InputError("wrong")

        everyone(engine, action)

    for error in on_ranks(2, fail):
        assert (type(error), str(error)) == (NoCheckpointError, "rank 0: none\nrank 1: wrong")


def test_an_error_between_collectives_reaches_whoever_waits_in_another_gate() -> None:
    """Rank 1 fails by itself while the others are at three different exchanges further on."""

    def set_up(engine: ThreadEngine) -> str:
        rank = engine.world.rank
        everyone(engine, lambda: None)
        if rank == 1:
            wrong(engine)
        if engine.world.rank == 0:
            return str(on_main(engine, lambda: "never"))
        if engine.world.rank == 2:
            require_agreement(engine, {"recipe": {"seed": 1}})
        everyone(engine, lambda: None)
        return "never"

    for error in on_ranks(4, lambda engine: everyone(engine, lambda: set_up(engine))):
        assert (type(error), str(error), error.everywhere) == (InputError, "rank 1: lr is negative", True)


def test_the_same_error_outside_inner_gates_is_said_once() -> None:
    """As Adasum on two DDP ranks, which `prepare` refuses without knowing of any gate."""
    for error in on_ranks(2, lambda engine: everyone(engine, lambda: wrong(engine))):
        assert (str(error), error.everywhere) == ("lr is negative", True)


def test_gates_in_gates_say_it_once() -> None:
    def outer(engine: ThreadEngine) -> Any:
        return everyone(engine, lambda: everyone(engine, lambda: wrong(engine)))

    for error in on_ranks(2, outer):
        assert str(error) == "lr is negative"


def test_a_result_passes() -> None:
    assert on_ranks(3, lambda e: everyone(e, lambda: e.world.rank)) == [0, 1, 2]
    assert on_ranks(3, lambda e: on_main(e, lambda: e.world.rank)) == [0, 0, 0]


def test_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are busy with something else: the rank that failed ends with its own error all the same."""
    monkeypatch.setattr(agreement, "PATIENCE", 0.2)

    def work(engine: ThreadEngine) -> None:
        if engine.world.rank == 0:
            everyone(engine, lambda: wrong(engine))

    error, _ = on_ranks(2, work)
    assert (type(error), str(error), error.everywhere) == (InputError, "lr is negative", False)


def test_own_code_is_named_by_file_and_line() -> None:
    def own() -> None:
        raise ValueError("planted")

    line = own.__code__.co_firstlineno + 1
    for error in on_ranks(2, lambda engine: everyone(engine, own)):
        assert type(error) is UserCodeError
        text = str(error).splitlines()
        assert text[0] == f"{__file__}:{line}: ValueError: planted"
        assert text[1] == "Traceback (most recent call last):"
        assert sum("File " in row for row in text) == 1, text
        assert "disttrain/engine" not in str(error)


def test_a_bug_of_ours_keeps_its_traceback() -> None:
    for error in on_ranks(2, lambda engine: everyone(engine, partial(load_recipe, 3))):  # type: ignore[arg-type]
        assert type(error) is RankError
        assert "Traceback" in str(error)
        assert "load_recipe" in str(error)
