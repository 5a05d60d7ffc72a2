"""RoPE on two axes against other libraries, in float64, with weights, bases and grids fresh on every run."""

from __future__ import annotations

import random
from types import ModuleType
from typing import Any

import pytest
import torch
from goldens import context_of, made
from peers import alike, copy, copy_linear, in_double, same
from torch import Tensor

from posenc.api.encoding import Encoding
from posenc.attention.softmax.kernel import Softmax
from posenc.backbone.config import BackboneConfig
from posenc.backbone.layers import Attention
from posenc.properties.subject import grid

pytestmark = [pytest.mark.oracle, pytest.mark.usefixtures("one_thread")]
HEADS, WIDTH = 3, 16
PLANE = {"axes": 2, "causal": False}


def drawn(seed: int) -> tuple[float, int, int]:
    """A base, rows and columns."""
    dice = random.Random(seed)
    return round(10 ** dice.uniform(0.5, 4), 2), dice.randint(2, 6), dice.randint(7, 9)


def queries_of(seed: int, count: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, HEADS, count, WIDTH, generator=generator, dtype=torch.float64)


def turned(encoding: Encoding, x: Tensor, columns: int) -> Tensor:
    """By the encoding, as queries and as keys, which is the same."""
    context = context_of(encoding, x.shape[2], coordinates=grid(x.shape[2], 2, columns)[None])
    found = encoding.rotate_query(x, context.query_positions, context)
    assert torch.equal(found, encoding.rotate_key(x, context.key_positions, context))
    return found


def close(found: Tensor, wanted: Tensor) -> None:
    assert wanted.dtype == torch.float64
    torch.testing.assert_close(found, wanted, atol=1e-12, rtol=0)


def test_sam_2s_attention(fresh_seed: int) -> None:
    """Its memory attention's layer of self-attention, columns first, with outputs and gradients."""
    transformers = pytest.importorskip("transformers", reason="the peer transformers is not installed: nox -s oracles")
    from transformers.models.sam2_video import modeling_sam2_video as sam

    base, rows, columns = drawn(fresh_seed)
    width, count = HEADS * WIDTH, rows * columns
    config = transformers.Sam2VideoConfig(
        memory_attention_hidden_size=width, memory_attention_num_attention_heads=HEADS,
        memory_attention_rope_feat_sizes=[columns, rows], memory_attention_rope_dropout=0.0,
        rope_parameters={"rope_type": "axial", "rope_theta": base},
    )  # fmt: skip
    config._attn_implementation = "sdpa"
    with in_double(sam):
        rotary, layer = sam.Sam2VideoVisionRotaryEmbedding(config), sam.Sam2VideoRoPEAttention(config).eval()
    encoding = made(f"axial_rope(base={base})", HEADS, WIDTH, stack=PLANE)
    mine = Attention(
        BackboneConfig(layers=1, width=width, heads=HEADS, feedforward=1),
        Softmax(causal=False, backend="auto", dropout=0.0),
    ).double()
    generator = torch.Generator().manual_seed(fresh_seed)
    names = (("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj"), ("out", "o_proj"))
    for name, their_name in names:
        own = getattr(mine, name)
        for parameter in (own.weight, own.bias):
            copy(parameter, torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.3)
        copy_linear(getattr(layer, their_name), own)
    x = torch.randn(2, count, width, generator=generator, dtype=torch.float64)
    context = context_of(encoding, count, coordinates=grid(count, 2, columns)[None])
    places = sam.Sam2VideoMemoryAttention.precompute_positions(config)

    def theirs() -> Tensor:
        one = x[:, None]  # they have a dimension of points between batch and tokens
        return layer(one, one, one, position_embeddings=rotary(one, places))[0][:, 0]

    alike(
        lambda: mine(x, encoding, context),
        in_double(sam)(theirs),
        [(getattr(mine, one).weight, getattr(layer, other).weight, same) for one, other in names],
    )


def test_rotary_embedding_torchs_axes(fresh_seed: int) -> None:
    """Rows first."""
    peer = pytest.importorskip(
        "rotary_embedding_torch.rotary_embedding_torch",
        reason="the peer rotary-embedding-torch is not installed: nox -s oracles",
    )
    base, rows, columns = drawn(fresh_seed)
    with in_double(peer):
        angles = peer.RotaryEmbedding(WIDTH // 2, theta=base).get_axial_freqs(rows, columns)
    x = queries_of(fresh_seed, rows * columns)
    wanted = peer.apply_rotary_emb(angles, x.unflatten(2, (rows, columns))).flatten(2, 3)
    close(turned(made(f"axial_rope(base={base}, rows_first=True)", HEADS, WIDTH, stack=PLANE), x, columns), wanted)


@pytest.fixture
def timm() -> ModuleType:
    """Their file of rotations. No group of dependencies has timm: its torchvision must be made for one's own torch."""
    try:
        from timm.layers import pos_embed_sincos
    except ImportError:
        pytest.skip("the peer timm is not installed: pip install timm, with a torchvision made for this torch")
    except RuntimeError as error:
        pytest.skip(f"the peer timm does not load, as torchvision is not made for this torch: {error}")
    return pos_embed_sincos


@pytest.mark.parametrize("indexing", ["xy", "ij"])
def test_timms_axes(fresh_seed: int, timm: Any, indexing: str) -> None:
    base, rows, columns = drawn(fresh_seed)
    with in_double(timm):
        rotary = timm.RotaryEmbedding(WIDTH, temperature=base, in_pixels=False, grid_indexing=indexing)
        turns = rotary.get_embed([rows, columns], dtype=torch.float64)
    x = queries_of(fresh_seed, rows * columns)
    encoding = made(f"axial_rope(base={base}, rows_first={indexing == 'ij'})", HEADS, WIDTH, stack=PLANE)
    close(turned(encoding, x, columns), timm.apply_rot_embed(x, *turns))


def test_timms_spectrum_in_pixels(fresh_seed: int, timm: Any) -> None:
    """Of a grid on whose sides no place is rounded: their places are float32 even so."""
    side = random.Random(fresh_seed).choice([3, 5, 9])
    with in_double(timm):
        turns = timm.RotaryEmbedding(WIDTH).get_embed([side, side], dtype=torch.float64)
    x = queries_of(fresh_seed, side**2)
    encoding = made(f"axial_rope(rows_first=True, pixels={side})", HEADS, WIDTH, stack=PLANE)
    close(turned(encoding, x, side), timm.apply_rot_embed(x, *turns))


def test_timms_mixed_axes(fresh_seed: int, timm: Any) -> None:
    """Theirs holds x before y, and the layers after; gradients of the frequencies too."""
    _, rows, columns = drawn(fresh_seed)
    encoding = made("rope_mixed", HEADS, WIDTH, stack=PLANE)
    encoding.initialise(torch.Generator().manual_seed(fresh_seed))
    frequencies = encoding.get_parameter("frequencies")
    with in_double(timm):
        rotary = timm.RotaryEmbeddingMixed(HEADS * WIDTH, depth=2, num_heads=HEADS)
    copy(rotary.freqs, frequencies.permute(2, 0, 1, 3).flip(0))
    x = queries_of(fresh_seed, rows * columns)
    alike(
        lambda: turned(encoding, x, columns),
        in_double(timm)(lambda: timm.apply_rot_embed_cat(x, rotary.get_embed([rows, columns])[1])),
        [(frequencies, rotary.freqs, lambda gradient: gradient.flip(0).permute(1, 2, 0, 3))],
    )


@pytest.mark.parametrize("width", [6, 8])
def test_three_axes_as_v_jepa_2_turns_them(width: int) -> None:
    """Of one pair an axis: with more, the released code turns the two channels of a pair by different angles."""
    theirs = pytest.importorskip("transformers.models.vjepa2.modeling_vjepa2")
    encoding = made("axial_rope_3d", head_width=width, stack={"axes": 3, "causal": False})
    x, at = torch.randn(2, HEADS, 24, width, dtype=torch.float64), grid(24, 3, 3)[None]
    context = context_of(encoding, 24, coordinates=at)
    parts = [
        theirs.rotate_queries_or_keys(x[..., 2 * axis : 2 * axis + 2], at[0, :, axis].double().expand(2, HEADS, -1))
        for axis in range(3)
    ]
    wanted = torch.cat((*parts, x[..., 6:]), dim=-1)
    found = encoding.rotate_query(x, context.query_positions, context)
    torch.testing.assert_close(found, wanted, atol=1e-12, rtol=0)
