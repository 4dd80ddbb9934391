"""Hugging Face models of random weights: their dropout is converted, and a configuration that others share is left alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from disttrain.nn import convert_dropout, dropout_masks
from disttrain.nn.dropout.watch import draws

SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 32}
TOKENS = {"vocab_size": 50, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}


def gpt2(attention: str) -> tuple[Any, Any]:
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes = {"n_layer": 2, "n_head": 2, "n_embd": 16, "n_positions": 32}
    return GPT2Config(**sizes, **TOKENS, use_cache=False, attn_implementation=attention), GPT2LMHeadModel


def bert(attention: str) -> tuple[Any, Any]:
    from transformers import BertConfig, BertForSequenceClassification

    return BertConfig(**SMALL, **TOKENS, attn_implementation=attention), BertForSequenceClassification


def llama(attention: str) -> tuple[Any, Any]:
    from transformers import LlamaConfig, LlamaForCausalLM

    more = {"num_key_value_heads": 2, "attention_dropout": 0.2, "use_cache": False}
    return LlamaConfig(**SMALL, **TOKENS, **more, attn_implementation=attention), LlamaForCausalLM


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", [gpt2, bert, llama])
def test_padding_and_cuts_do_not_matter(kind: Callable[[str], tuple[Any, Any]], attention: str) -> None:
    torch.manual_seed(0)
    config, make = kind(attention)
    model, other = make(config).double().eval(), make(config)
    tokens = torch.randint(1, 50, (6, 9))
    lengths = torch.tensor([5, 4, 3, 9, 7, 8])
    mask = (torch.arange(9) < lengths[:, None]).long()

    def logits(lo: int, hi: int, longest: int) -> Tensor:
        found: Tensor = model(input_ids=tokens[lo:hi, :longest], attention_mask=mask[lo:hi, :longest]).logits
        return (
            found if found.dim() == 2 else found.gather(1, (lengths[lo:hi] - 1)[:, None, None].expand(-1, 1, 50))[:, 0]
        )

    before, kinds, keys = logits(0, 6, 9).detach(), [type(m) for m in other.modules()], list(model.state_dict())
    convert_dropout(model)
    assert torch.equal(logits(0, 6, 9), before)
    assert list(model.state_dict()) == keys
    assert [type(m) for m in other.modules()] == kinds
    assert config._attn_implementation == attention

    model.train()
    with dropout_masks(seed=1, update=2, first=0, samples=6):
        whole = logits(0, 6, 9)
        assert draws(model, lambda: logits(0, 6, 9)) == []
    pieces = []
    for lo, hi, longest in ((0, 3, 5), (3, 6, 9)):  # the first three are padded less
        with dropout_masks(seed=1, update=2, first=lo, samples=hi - lo):
            pieces.append(logits(lo, hi, longest))
    torch.testing.assert_close(torch.cat(pieces), whole, rtol=1e-12, atol=1e-13)
    assert float((whole - before).detach().abs().max()) > 1e-3


def test_a_model_of_the_library_without_dropout_is_not_touched() -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    model = LlamaForCausalLM(LlamaConfig(**SMALL, **TOKENS))
    kinds = [type(m) for m in model.modules()]
    assert [type(m) for m in convert_dropout(model).modules()] == kinds
