"""Models of transformers: called with keywords, giving outputs by name, with tied weights; out by ``save_pretrained``."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers", reason="needs Hugging Face transformers, an optional dependency")

from disttrain.config import load_recipe
from disttrain.engine.local import LocalEngine
from disttrain.engine.world import World
from disttrain.inference.choice import Origin
from disttrain.inference.export.export import export
from disttrain.inference.prepared import Prepared, build_model

HERE = Path(__file__).parent
ORIGIN = Origin(3, Path("step-00000003"), averaged=False)


@pytest.fixture
def ready(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Prepared:
    monkeypatch.syspath_prepend(str(HERE))
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        'name: gpt\ntask: {name: "hf_tasks:NextToken"}\nmodel: {name: "hf_tasks:gpt2"}\nbatch: {global: 8}\nupdates: 1\n'
        "optimizer: {name: sgd, lr: 0.1}\n"
    )
    engine = LocalEngine(World(0, 1, 0, 1, 0, torch.device("cpu")))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return build_model(load_recipe(recipe), engine)


@pytest.mark.parametrize("file", ["out", "a.safetensors", pytest.param("a.onnx", marks=pytest.mark.slow), "a.pt2"])
def test_a_gpt_2_comes_out_as_it_is(file: str, ready: Prepared, tmp_path: Path) -> None:
    tokens = torch.arange(18).view(2, 9)
    model = ready.model.eval()
    with torch.no_grad():
        expected = model(input_ids=tokens).logits
    found = export(ready, ORIGIN, tmp_path / file)
    assert found.difference < 1e-5
    assert found.metrics["accuracy"] == found.metrics_before["accuracy"]
    if file == "out":
        loaded = type(model).from_pretrained(tmp_path / file)
        with torch.no_grad():
            assert torch.equal(loaded(input_ids=tokens).logits, expected)
        assert json.loads((tmp_path / "out/disttrain.json").read_text())["step"] == 3
    if file == "a.safetensors":
        from safetensors.torch import load_file

        weights = load_file(tmp_path / file)
        assert torch.equal(weights["lm_head.weight"], weights["transformer.wte.weight"])
        model.load_state_dict(weights, strict=True)
    if file == "a.pt2":
        program = torch.export.load(tmp_path / file).module()
        found_logits = program(input_ids=tokens, attention_mask=torch.ones_like(tokens))["logits"]
        torch.testing.assert_close(found_logits, expected, rtol=0, atol=1e-6)
    if file == "a.onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(tmp_path / file)
        assert [entry.name for entry in session.get_inputs()] == ["input_ids", "attention_mask"]
        feed = {"input_ids": tokens.numpy(), "attention_mask": torch.ones_like(tokens).numpy()}
        (logits,) = session.run(["logits"], feed)
        torch.testing.assert_close(torch.from_numpy(logits), expected, rtol=0, atol=1e-5)
