"""Layers with dropout: the same masks however a batch is cut, recomputation, and what is left as it was."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from disttrain.errors import InputError
from disttrain.nn import Dropout, StochasticDepth, convert_dropout, dropout_masks
from disttrain.nn.dropout import draws_masks


class DropPath(nn.Module):
    """As timm has it."""

    def __init__(self, drop_prob: float = 0.3, scale_by_keep: bool = True) -> None:
        super().__init__()
        self.drop_prob, self.scale_by_keep = drop_prob, scale_by_keep

    def forward(self, x: Tensor) -> Tensor:
        return x


class Attention(nn.Module):
    """As nanoGPT has it: probabilities that are given to functions."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = 0.3
        self.qkv = nn.Linear(8, 24)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (t.unflatten(-1, (2, 4)).transpose(1, 2) for t in self.qkv(x).chunk(3, dim=-1))
        p = self.dropout if self.training else 0
        mixed = F.scaled_dot_product_attention(q, k, v, dropout_p=p, is_causal=True)
        return F.dropout(mixed.transpose(1, 2).flatten(2), p=self.dropout, training=self.training)


class Flattening(nn.Module):
    """Positions of all samples one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.4)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(x.flatten(0, 1)).view_as(x)


class Twice(nn.Module):
    """One layer in two places."""

    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.drop(x) + 1)


LAYER = {"d_model": 8, "nhead": 2, "dim_feedforward": 16, "dropout": 0.3}
MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int]] = {
    "Dropout": (lambda: nn.Dropout(0.3), (6, 10), 0),
    "Dropout in place": (lambda: nn.Sequential(nn.Linear(10, 10), nn.Dropout(0.3, inplace=True)), (6, 10), 0),
    "a scalar a sample": (lambda: nn.Dropout(0.3), (6,), 0),
    "Dropout1d": (lambda: nn.Dropout1d(0.3), (6, 5, 4), 0),
    "Dropout2d": (lambda: nn.Dropout2d(0.3), (6, 5, 3, 3), 0),
    "Dropout3d": (lambda: nn.Dropout3d(0.3), (6, 5, 2, 2, 2), 0),
    "AlphaDropout": (lambda: nn.AlphaDropout(0.3), (6, 10), 0),
    "StochasticDepth": (lambda: StochasticDepth(0.5), (6, 3, 3), 0),
    "DropPath": (lambda: DropPath(0.5), (6, 3, 3), 0),
    "DropPath unscaled": (lambda: DropPath(0.5, False), (6, 3, 3), 0),
    "flattened": (Flattening, (6, 4, 5), 0),
    "twice": (Twice, (6, 12), 0),
    "samples second": (lambda: Dropout(0.3, dim=1), (7, 6, 5), 1),
    "attention by functions": (Attention, (6, 5, 8), 0),
    "encoder": (lambda: nn.TransformerEncoderLayer(**LAYER, batch_first=True), (6, 5, 8), 0),
    "encoder, sequence first": (lambda: nn.TransformerEncoderLayer(**LAYER), (5, 6, 8), 1),
}


def converted(make: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return convert_dropout(make().double()).train()


def in_pieces(model: nn.Module, x: Tensor, dim: int, cuts: Sequence[int], **where: int) -> Tensor:
    """The outputs of micro-batches that end at ``cuts``, put together."""
    out, settings = [], {"seed": 7, "update": 3, **where}
    for lo, hi in zip([0, *cuts], cuts, strict=False):
        with dropout_masks(first=lo, samples=hi - lo, **settings):
            out.append(model(x.narrow(dim, lo, hi - lo).clone()))
    return torch.cat(out, dim=dim)


@pytest.mark.parametrize("name", MODELS)
def test_cuts_of_the_batch_do_not_matter(name: str) -> None:
    make, shape, dim = MODELS[name]
    model, x = converted(make), torch.rand(*shape, dtype=torch.float64) + 1
    whole = in_pieces(model, x, dim, [6])
    torch.testing.assert_close(in_pieces(model, x, dim, [1, 4, 6]), whole, rtol=1e-14, atol=1e-14)
    for other in ({"seed": 8}, {"update": 4}):
        assert not torch.equal(in_pieces(model, x, dim, [6], **other), whole), other


@pytest.mark.parametrize(
    "name", [name for name in MODELS if name not in ("StochasticDepth", "DropPath", "DropPath unscaled")]
)
def test_names_keys_and_evaluation_stay(name: str) -> None:
    make, shape, _ = MODELS[name]
    torch.manual_seed(0)
    plain, x = make().eval(), torch.rand(shape)
    before, keys, text = plain(x.clone()), list(plain.state_dict()), repr(plain)
    model = convert_dropout(copy.deepcopy(plain))
    assert draws_masks(model)
    assert torch.equal(model(x.clone()), before)
    assert (list(model.state_dict()), repr(model)) == (keys, text)


def test_the_first_forward_of_a_copy_and_of_a_pickle_is_the_same() -> None:
    model, x = converted(lambda: nn.Sequential(nn.Dropout(0.5))), torch.ones(4, 9, dtype=torch.float64)
    expected = in_pieces(model, x, 0, [4])
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(in_pieces(other, x, 0, [4]), expected)


def test_layers_are_told_apart_by_name_and_calls_by_number() -> None:
    x = torch.ones(4, 64, dtype=torch.float64)
    pair = converted(lambda: nn.ModuleDict({"a": nn.Dropout(0.5), "b": nn.Dropout(0.5)}))
    with dropout_masks(seed=1, update=1, first=0, samples=4):
        first, other, again = pair["a"](x), pair["b"](x), pair["a"](x)
    with dropout_masks(seed=1, update=1, first=0, samples=4):
        assert torch.equal(pair["b"](x), other), "not by the order in which layers are called"
        assert torch.equal(pair["a"](x), first)
    for a, b in ((first, other), (first, again), (other, again)):
        assert 0.3 < float((a == b).double().mean()) < 0.7


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_the_mean_is_kept_in_every_dtype(dtype: torch.dtype, p: float) -> None:
    """A bfloat16 mask that holds the scale would be off by 0.15 % at 0.1."""
    model, x = convert_dropout(nn.Dropout(p)), torch.rand(64, 4096).to(dtype) + 1
    with dropout_masks(seed=1, update=1, first=0, samples=64):
        out = model(x)
    assert out.dtype == dtype
    kept = out != 0
    assert float(kept.double().mean()) == pytest.approx(1 - p, abs=5 * (p * (1 - p) / x.numel()) ** 0.5)
    scale = 65536 / round((1 - p) * 65536)
    ratio = float(out[kept].double().sum() / x[kept].double().sum())
    assert ratio == pytest.approx(scale, rel=1e-5 if dtype in (torch.float64, torch.float32) else 1e-3)


def test_alpha_dropout_keeps_mean_and_variance() -> None:
    x = torch.randn(64, 4096, dtype=torch.float64)
    model = converted(lambda: nn.AlphaDropout(0.3))
    out = in_pieces(model, x, 0, [64])
    assert abs(float(out.mean())) < 0.01
    assert float(out.var()) == pytest.approx(1.0, abs=0.01)


def test_whole_channels_and_whole_samples() -> None:
    channels = in_pieces(converted(lambda: nn.Dropout2d(0.5)), torch.ones(8, 16, 4, 4, dtype=torch.float64), 0, [8])
    assert set(channels.mean(dim=(2, 3)).unique().tolist()) == {0.0, 2.0}
    paths = in_pieces(converted(lambda: DropPath(0.5)), torch.ones(64, 4, 4, dtype=torch.float64), 0, [64])
    assert set(paths.mean(dim=(1, 2)).unique().tolist()) == {0.0, 2.0}


def test_the_ends() -> None:
    x = torch.rand(4, 5)
    for p, expected in ((0.0, x), (1.0, torch.zeros(4, 5)), (1e-7, x)):
        assert torch.equal(in_pieces(convert_dropout(nn.Sequential(Dropout(p))), x, 0, [4]), expected)
    assert in_pieces(convert_dropout(nn.Dropout(0.5)), torch.rand(4, 0), 0, [4]).shape == (4, 0)


def test_outside_it_is_torch() -> None:
    x = torch.rand(4, 50)
    for ours, theirs in ((Dropout(0.3), nn.Dropout(0.3)), (converted(lambda: nn.Dropout2d(0.3)), nn.Dropout2d(0.3))):
        found = []
        for layer in (ours, theirs):
            torch.manual_seed(3)
            found.append(layer(x[..., None, None]))
        assert torch.equal(*found)


def test_generators_are_as_before() -> None:
    model, before = converted(lambda: nn.Dropout(0.3)), torch.get_rng_state()
    with dropout_masks(seed=1, update=1, first=0, samples=4):
        model(torch.ones(4, 9))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("mask", "padding", "batch_first"), [(None, None, True), ("causal", None, False), ("bool", "bool", True)]
)
def test_attention_is_that_of_torch(mask: str | None, padding: str | None, batch_first: bool) -> None:
    torch.manual_seed(0)
    theirs = nn.MultiheadAttention(8, 2, batch_first=batch_first).double()
    ours = copy.deepcopy(theirs)
    ours.dropout = 1e-7  # rounded to nothing, so that only the formula is left
    convert_dropout(ours)
    x = torch.randn(*((3, 5, 8) if batch_first else (5, 3, 8)), dtype=torch.float64)
    triangle = torch.ones(5, 5, dtype=torch.bool).triu(1)
    masks = {None: None, "bool": triangle, "causal": nn.Transformer.generate_square_subsequent_mask(5).double()}
    ends = None if padding is None else torch.tensor([[False] * n + [True] * (5 - n) for n in (5, 3, 4)])
    with dropout_masks(seed=1, update=1, first=0, samples=3):
        out, weights = ours(x, x, x, attn_mask=masks[mask], key_padding_mask=ends)
    expected = theirs(x, x, x, attn_mask=masks[mask], key_padding_mask=ends)
    torch.testing.assert_close(out, expected[0], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(weights, expected[1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("gqa", [False, True])
def test_the_formula_of_attention_is_that_of_torch(gqa: bool) -> None:
    class Grouped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dropout = 1e-7

        def forward(self, q: Tensor, k: Tensor, mask: Tensor) -> Tensor:
            return F.scaled_dot_product_attention(
                q, k, k, attn_mask=mask, dropout_p=self.dropout, scale=0.3, enable_gqa=gqa
            )

    q, k = torch.randn(2, 4, 5, 8).double(), torch.randn(2, 2 if gqa else 4, 6, 8).double()
    for mask in (torch.rand(5, 6) > 0.2, torch.randn(2, 1, 5, 6).double()):
        expected = F.scaled_dot_product_attention(q, k, k, attn_mask=mask, scale=0.3, enable_gqa=gqa)
        with dropout_masks(seed=1, update=1, first=0, samples=2):
            torch.testing.assert_close(convert_dropout(Grouped())(q, k, mask), expected, rtol=1e-12, atol=1e-12)


class Shared(nn.Module):
    """Four blocks that are one, each recomputed by itself: the call of a layer has to be found again."""

    def __init__(self, reentrant: bool | None, **settings: bool) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5), nn.Tanh(), nn.Dropout(0.2))
        self.block.append(self.block[1])
        self.reentrant, self.settings = reentrant, settings

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(4):
            if self.reentrant is None:
                x = self.block(x)
            else:
                x = checkpoint(self.block, x, use_reentrant=self.reentrant, **self.settings)
        return x


def gradients(reentrant: bool | None) -> Tensor:
    model = converted(lambda: Shared(reentrant))
    x = torch.linspace(-1, 1, 6 * 8, dtype=torch.float64).view(6, 8).requires_grad_()
    for first in (0, 3):
        with dropout_masks(seed=1, update=1, first=first, samples=3):
            model(x[first : first + 3]).square().sum().backward()
    return torch.cat([p.grad.flatten() for p in (*model.parameters(), x) if p.grad is not None])


@pytest.mark.parametrize("reentrant", [False, True])
def test_recomputed_activations_have_the_same_masks(reentrant: bool) -> None:
    torch.testing.assert_close(gradients(reentrant), gradients(None), rtol=1e-13, atol=1e-13)


def test_recomputation_that_cannot_know_its_call_is_refused() -> None:
    model = converted(lambda: Shared(False, preserve_rng_state=False))
    x = torch.ones(3, 8, dtype=torch.float64, requires_grad=True)
    with dropout_masks(seed=1, update=1, first=0, samples=3):
        out = model(x).sum()
        with pytest.raises(RuntimeError, match="preserve_rng_state"):
            out.backward()


def test_misuse_is_an_error() -> None:
    model = converted(lambda: nn.Dropout(0.5))
    with dropout_masks(seed=1, update=1, first=0, samples=4):
        with (
            pytest.raises(RuntimeError, match="inside dropout_masks"),
            dropout_masks(seed=1, update=1, first=0, samples=4),
        ):
            pass
        with pytest.raises(RuntimeError, match="convert_dropout"):
            Dropout(0.5)(torch.ones(4, 3))
        torch.manual_seed(5)
        with pytest.raises(RuntimeError, match="seed of torch's CPU generator"):
            model(torch.ones(4, 3))
    with pytest.raises(ValueError, match="between 0 and 1"):
        StochasticDepth(1.5)


@pytest.mark.parametrize("shape", [(1, 7), (6, 7), (7, 4, 3), (8, 4, 3)])
def test_samples_in_another_place_are_refused(shape: tuple[int, ...]) -> None:
    model = converted(lambda: nn.ModuleDict({"head": nn.Dropout(0.5)}))
    with (
        dropout_masks(seed=1, update=1, first=0, samples=4),
        pytest.raises(InputError, match=r"dropout head: its input is of shape .* 4 samples"),
    ):
        model["head"](torch.ones(shape))


class BatchMode(nn.Module):
    """As torchvision has it."""

    def __init__(self) -> None:
        super().__init__()
        self.p, self.mode = 0.5, "batch"


BatchMode.__name__ = "StochasticDepth"


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (lambda: nn.LSTM(3, 3, num_layers=2, dropout=0.1), r"inner\.0 \(LSTM\) drops between its layers"),
        (lambda: nn.GRU(3, 3, num_layers=2, dropout=0.1), r"inner\.0 \(GRU\)"),
        (lambda: nn.FeatureAlphaDropout(0.1), r"inner\.0 \(FeatureAlphaDropout\)"),
        (lambda: nn.MultiheadAttention(4, 2, dropout=0.1, add_zero_attn=True), "add_zero_attn"),
        (BatchMode, 'mode="row"'),
    ],
)
def test_what_cannot_be_converted_is_refused_by_name(layer: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        convert_dropout(nn.ModuleDict({"inner": nn.Sequential(layer())}))


def test_what_drops_nothing_is_left_alone() -> None:
    model = nn.Sequential(nn.Dropout(0.0), nn.LSTM(3, 3, dropout=0.0), DropPath(0.0), nn.MultiheadAttention(4, 2))
    kinds = [type(m) for m in model.modules()]
    assert [type(m) for m in convert_dropout(model).modules()] == kinds
    assert not draws_masks(model)


class Windows(Attention):
    """Attention within windows, as Swin has it: several rows of weights for each sample."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.unflatten(1, (3, 4)).flatten(0, 1)).unflatten(0, (len(x), 3)).flatten(1, 2)


def test_as_many_heads_as_samples_are_not_mistaken_for_samples() -> None:
    model, x = converted(Windows), torch.rand(6, 12, 8, dtype=torch.float64)
    torch.testing.assert_close(in_pieces(model, x, 0, [2, 4, 6]), in_pieces(model, x, 0, [6]), rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("attention", [True, False])
def test_a_checkpoint_inside_of_a_module_that_calls_dropout_is_refused(reentrant: bool, attention: bool) -> None:
    """It would be computed again with torch's masks."""

    class Inner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dropout, self.layer = 0.3, nn.Linear(8, 8)

        def body(self, x: Tensor) -> Tensor:
            if attention:
                return F.scaled_dot_product_attention(x, x, self.layer(x), dropout_p=self.dropout)
            return F.dropout(self.layer(x), self.dropout, self.training)

        def forward(self, x: Tensor) -> Tensor:
            return checkpoint(self.body, x, use_reentrant=reentrant)

    model, allowed = nn.ModuleDict({"block": converted(Inner)}), converted(Attention)
    convert_dropout(model)
    x = torch.rand(4, 2, 3, 8, dtype=torch.float64, requires_grad=True)
    with dropout_masks(seed=1, update=1, first=0, samples=4):
        with pytest.raises(
            InputError, match=r"^dropout block \(Inner\): .* put the checkpoint around the whole module"
        ):
            model["block"](x)
        checkpoint(allowed, x[:, 0], use_reentrant=reentrant).sum().backward()
