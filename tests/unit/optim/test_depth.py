"""Depth of parameters in models whose lists have lists in them."""

from __future__ import annotations

from torch import nn

from disttrain.optim import layer_depths


def test_depth_of_stages_is_that_of_their_blocks() -> None:
    """Stages differ in width; layers with several experts do not, and are blocks themselves."""

    def members(*widths: int) -> nn.ModuleList:
        return nn.ModuleList(
            nn.ModuleDict({"lead": nn.Linear(w, w), "parts": nn.ModuleList(nn.MultiheadAttention(w, 1) for _ in "ab")})
            for w in widths
        )

    for widths, heads, last in (((2, 4, 6), 7, 6), ((2, 2, 2), 4, 3)):
        model = nn.ModuleDict({"stem": nn.Linear(2, 2), "stages": members(*widths), "head": nn.Linear(2, 2)})
        depths, head = layer_depths(model)
        assert (depths["stem.bias"], depths["stages.2.parts.1.in_proj_bias"], head) == (0, last, heads)
        assert depths["stages.0.parts.0.in_proj_bias"] == depths["stages.0.parts.1.in_proj_bias"] - (last == 6) == 1
