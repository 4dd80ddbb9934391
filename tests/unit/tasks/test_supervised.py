"""A task made of functions."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from disttrain.config import load_recipe
from disttrain.data import ArrayDataset
from disttrain.engine.blame import short_trace
from disttrain.errors import InputError
from disttrain.tasks.make import load_sets
from disttrain.tasks.supervised import Supervised

LOSS = partial(F.cross_entropy, reduction="none")
DATA = ArrayDataset(torch.randn(8, 4), torch.arange(8) % 3)


def right(outputs: Tensor, targets: Tensor) -> Tensor:
    return outputs.argmax(1) == targets


def test_pairs_and_dicts_give_the_same() -> None:
    task = Supervised(DATA, DATA, LOSS, {"accuracy": right})
    model = nn.Linear(4, 3)
    x, y = DATA.tensors
    expected = F.cross_entropy(model(x), y, reduction="none")
    torch.testing.assert_close(task.losses(model, (x, y)), expected)
    found = task.metrics(model, (x, y))
    torch.testing.assert_close(found["loss"], expected)
    assert torch.equal(found["accuracy"], model(x).argmax(1) == y)

    def hugging_face(**inputs: Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=model(inputs["pixel_values"]))

    torch.testing.assert_close(task.losses(hugging_face, {"pixel_values": x, "labels": y}), expected)  # type: ignore[arg-type]


def test_the_first_metric_decides() -> None:
    assert Supervised(DATA, DATA, LOSS).metric == "loss"
    task = Supervised(DATA, DATA, LOSS, {"error": right}, lower_is_better=True)
    assert (task.metric, task.metric_names) == ("error", ("loss", "error"))
    assert not task.higher_is_better("error")
    assert not task.higher_is_better("loss")
    assert Supervised(DATA, DATA, LOSS, {"accuracy": right}).higher_is_better("accuracy")


def test_other_samples_are_refused_with_their_keys() -> None:
    task = Supervised(DATA, DATA, LOSS)
    with pytest.raises(InputError, match=r"a dict of x, y; expected a pair .* the key 'labels'"):
        task.losses(nn.Identity(), {"x": torch.zeros(2), "y": torch.zeros(2)})


def test_a_metric_that_is_a_mean_already_is_refused() -> None:
    model = nn.Linear(4, 3)
    batch = DATA.tensors
    for wrong in (lambda o, y: (o.argmax(1) == y).float().mean(), lambda o, y: (o[:, :1] - y).abs()):  # (8, 1) and (8,)
        task = Supervised(DATA, DATA, LOSS, {"odd": wrong})
        with pytest.raises(InputError, match=r"metrics\(\) gave odd of shape \((8, 8)?\) for a batch of 8 samples"):
            task.evaluate(model, batch)
    fine = Supervised(DATA, DATA, LOSS, {"a": right, "b": lambda o, y: (o[:, :1] - y[:, None]).abs()})
    totals = {name: value.item() for name, value in fine.evaluate(model, batch).items()}
    assert set(fine.summarise(totals)) == {"loss", "a", "b"}


def test_an_empty_set_is_refused_before_training() -> None:
    recipe = load_recipe(None, [])
    with pytest.raises(InputError, match=r"test_dataset\(\) is empty"):
        load_sets(recipe, Supervised(DATA, ArrayDataset(torch.randn(0, 4), torch.zeros(0).long()), LOSS))


def test_the_trace_of_a_model_that_does_not_fit_begins_at_its_call() -> None:
    with pytest.raises(RuntimeError) as caught:
        Supervised(DATA, DATA, LOSS).losses(nn.Linear(5, 3), DATA.tensors)
    error = caught.value.with_traceback(caught.value.__traceback__.tb_next if caught.value.__traceback__ else None)
    lines = short_trace(error).splitlines()
    assert lines[1].endswith("in outputs")
    assert lines[-1].startswith("RuntimeError: mat1 and mat2")
