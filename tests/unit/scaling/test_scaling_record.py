"""What is written of a scaling is what is read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from disttrain.errors import InputError
from disttrain.scaling.record import (
    NAME,
    Exchanged,
    ExchangeModel,
    Forecast,
    Interval,
    ScaledRun,
    Scaling,
    Split,
    load,
    save,
)

SPLIT = Split(0.01, 0.001, 0.002, 0.0005, 0.001, 0.0004, 0.0001)
RUN = ScaledRun("weak", 2, 1, "ddp", 64, Interval(4000.0, 3900.0, 4100.0), Interval(0.016, 0.0156, 0.0164), SPLIT)
MODEL = ExchangeModel(
    1e-4, Interval(1e-4, 8e-5, 2e-4), 1e-9, Interval(1e-9, 9e-10, 2e-9), (Exchanged(2, 1, None, 1024, 2e-4),)
)
SCALING = Scaling(
    "digits",
    {"batch": {"global": 64}},
    {"cores": 2},
    4096,
    (RUN,),
    MODEL,
    (Forecast("weak", 64, 2048, Interval(1e5, 9e4, 1.1e5)),),
    ("all is well",),
)


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    save(SCALING, tmp_path)
    assert load(tmp_path) == SCALING
    assert SPLIT.step == pytest.approx(0.015)
    assert json.loads((tmp_path / NAME).read_text())["runs"][0]["samples_per_second"]["low"] == 3900.0


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [("version", 2, "version 2"), ("runs", [{}], "runs.0.mode"), ("exchange", 3, "exchange")],
)
def test_what_is_no_scaling_is_refused(tmp_path: Path, key: str, value: object, says: str) -> None:
    with pytest.raises(InputError, match=r"scale\.json is missing"):
        load(tmp_path)
    save(SCALING, tmp_path)
    path = tmp_path / NAME
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(InputError, match=says):
        load(tmp_path)
