"""Decoders of the library transformers with copied weights, in float64: GPT-2, GPT-NeoX, Llama for long rows, BLOOM.

Their models differ from posenc's backbone in what is no question of position, and each test says how it is set alike:
RMS norms, gated feed-forwards, the tanh form of GELU. Attention, its scale, masks, frequencies, rotations and slopes
are theirs. Weights and options are fresh on every run.
"""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from peers import (
    HEADS,
    INNER,
    LAYERS,
    ROOM,
    ROOT,
    STATES,
    VOCABULARY,
    WIDTH,
    alike,
    copy,
    copy_linear,
    copy_norm,
    halves,
    heads_of,
    in_double,
    no_norm,
    ours,
    rooted,
    same,
    tokens_of,
    transposed,
)
from torch import Tensor, nn

from posenc.backbone.transformer import Transformer

transformers = pytest.importorskip("transformers", reason="the peer transformers is not installed: nox -s oracles")
pytestmark = [pytest.mark.oracle, pytest.mark.usefixtures("one_thread")]


def test_gpt2(fresh_seed: int) -> None:
    """Set alike: GELU by the error function."""
    mine = ours("learned", fresh_seed)
    config = transformers.GPT2Config(
        vocab_size=VOCABULARY, n_embd=WIDTH, n_layer=LAYERS, n_head=HEADS, n_inner=INNER, n_positions=ROOM,
        activation_function="gelu", resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, attn_implementation="sdpa",
    )  # fmt: skip
    theirs = transformers.GPT2Model(config).double().eval()
    copy(theirs.wte.weight, mine.embedding.weight * ROOT)
    copy(theirs.wpe.weight, mine.encodings()[0].table * ROOT)
    stack = mine.get_submodule("decoder")
    for layer, own in zip(theirs.h, stack.layers, strict=True):
        parts = [own.attention.query, own.attention.key, own.attention.value]
        copy(layer.attn.c_attn.weight, torch.cat([part.weight for part in parts]).T)
        copy(layer.attn.c_attn.bias, torch.cat([part.bias for part in parts]))
        for target, source in (
            (layer.attn.c_proj, own.attention.out),
            (layer.mlp.c_fc, own.feedforward.inner),
            (layer.mlp.c_proj, own.feedforward.outer),
        ):
            copy(target.weight, source.weight.T)
            copy(target.bias, source.bias)
        copy_norm(layer.ln_1, own.attention_norm)
        copy_norm(layer.ln_2, own.feedforward_norm)
    copy_norm(theirs.ln_f, stack.final_norm)
    tokens = tokens_of(fresh_seed)
    alike(
        lambda: mine.hidden(tokens),
        lambda: theirs(tokens).last_hidden_state,
        [
            (mine.encodings()[0].table, theirs.wpe.weight, rooted),
            (stack.layers[0].attention.query.weight, theirs.h[0].attn.c_attn.weight, lambda x: x.T[:WIDTH]),
            (stack.layers[1].feedforward.inner.weight, theirs.h[1].mlp.c_fc.weight, transposed),
        ],
    )


def test_gpt_neox_with_partial_rotary(fresh_seed: int) -> None:
    """Set alike: parts one after another, not in parallel. Theirs turns halves, ours pairs."""
    from transformers.models.gpt_neox import modeling_gpt_neox

    mine = ours("rope(fraction=0.25)", fresh_seed)
    rotated = WIDTH // HEADS // 4
    config = transformers.GPTNeoXConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
        intermediate_size=INNER, max_position_embeddings=ROOM, hidden_act="gelu", rotary_pct=0.25,
        use_parallel_residual=False, layer_norm_eps=1e-5, attn_implementation="sdpa",
    )  # fmt: skip
    with in_double(modeling_gpt_neox):
        theirs = transformers.GPTNeoXModel(config).double().eval()
    order = heads_of(halves(rotated, WIDTH // HEADS), HEADS)
    copy(theirs.embed_in.weight, mine.embedding.weight * ROOT)
    stack = mine.get_submodule("decoder")

    def fused(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Theirs holds each head's query, key and value together."""
        parts = [part.unflatten(0, (HEADS, -1)) for part in (query[order], key[order], value)]
        return torch.cat(parts, dim=1).flatten(0, 1)

    for layer, own in zip(theirs.layers, stack.layers, strict=True):
        attention = own.attention
        copy(
            layer.attention.query_key_value.weight,
            fused(*(getattr(attention, n).weight for n in ("query", "key", "value"))),
        )
        copy(
            layer.attention.query_key_value.bias,
            fused(*(getattr(attention, n).bias for n in ("query", "key", "value"))),
        )
        copy_linear(layer.attention.dense, attention.out)
        copy_linear(layer.mlp.dense_h_to_4h, own.feedforward.inner)
        copy_linear(layer.mlp.dense_4h_to_h, own.feedforward.outer)
        copy_norm(layer.input_layernorm, own.attention_norm)
        copy_norm(layer.post_attention_layernorm, own.feedforward_norm)
    copy_norm(theirs.final_layer_norm, stack.final_norm)
    tokens = tokens_of(fresh_seed)
    back = torch.argsort(order)

    def query_part(gradient: Tensor) -> Tensor:
        width = WIDTH // HEADS
        return gradient.unflatten(0, (HEADS, 3 * width))[:, :width].flatten(0, 1)[back]

    alike(
        lambda: mine.hidden(tokens),
        in_double(modeling_gpt_neox)(lambda: theirs(tokens).last_hidden_state),
        [
            (mine.embedding.weight, theirs.embed_in.weight, rooted),
            (stack.layers[0].attention.query.weight, theirs.layers[0].attention.query_key_value.weight, query_part),
        ],
    )


LLAMA_HEADS = 2
"""Of 12 channels each: six frequencies."""


def llama(mine: Transformer, given: dict[str, Any], longest: int) -> tuple[Any, Tensor]:
    """Theirs with our weights, and where each of its channels of queries and keys comes from."""
    from transformers import modeling_rope_utils
    from transformers.models.llama import modeling_llama

    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=LLAMA_HEADS,
        num_key_value_heads=LLAMA_HEADS, intermediate_size=INNER, max_position_embeddings=longest,
        attention_bias=True, rope_parameters=given, attn_implementation="sdpa",
    )  # fmt: skip
    with in_double(modeling_llama, modeling_rope_utils):
        theirs = transformers.LlamaModel(config).double().eval()
    width = WIDTH // LLAMA_HEADS
    order, stack = heads_of(halves(width, width), LLAMA_HEADS), mine.get_submodule("decoder")
    for layer, own in zip(theirs.layers, stack.layers, strict=True):
        layer.input_layernorm, layer.post_attention_layernorm = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        layer.mlp = nn.Sequential(nn.Linear(WIDTH, INNER), nn.GELU(), nn.Linear(INNER, WIDTH))
        layer.double()
        for target, source in (("q_proj", "query"), ("k_proj", "key")):
            copy_linear(getattr(layer.self_attn, target), getattr(own.attention, source), order)
        copy_linear(layer.self_attn.v_proj, own.attention.value)
        copy_linear(layer.self_attn.o_proj, own.attention.out)
        copy_linear(layer.mlp[0], own.feedforward.inner)
        copy_linear(layer.mlp[2], own.feedforward.outer)
        copy_norm(layer.input_layernorm, own.attention_norm)
        copy_norm(layer.post_attention_layernorm, own.feedforward_norm)
    theirs.norm = nn.LayerNorm(WIDTH).double()
    copy_norm(theirs.norm, stack.final_norm)
    copy(theirs.embed_tokens.weight, mine.embedding.weight * ROOT)
    theirs.forward = in_double(modeling_llama, modeling_rope_utils)(theirs.forward)
    return theirs, order


def drawn(kind: str, seed: int) -> tuple[str, dict[str, Any], int]:
    """A variant's options, as ours and as theirs, and the longest row that theirs is told of."""
    dice = random.Random(seed)
    base, factor = round(10 ** dice.uniform(2.5, 6), 1), float(dice.randint(2, 6))
    slow, fast = round(dice.uniform(0.1, 0.4), 3), round(dice.uniform(1.0, 3.0), 3)
    given: dict[str, Any] = {"rope_type": kind, "rope_theta": base}
    if kind == "default":
        return f"rope(base={base})", given, ROOM
    if kind == "proportional":
        part = dice.choice([0.34, 0.5, 0.75])
        return f"p_rope(base={base}, p={part})", {**given, "partial_rotary_factor": part}, ROOM
    given["factor"], both = factor, f"base={base}, factor={factor}"
    if kind in ("linear", "dynamic"):
        return f"rope_{kind}({both})", given, ROOM
    given["original_max_position_embeddings"] = ROOM
    if kind == "yarn":
        return f"yarn({both}, fast={fast}, slow={slow})", {**given, "beta_fast": fast, "beta_slow": slow}, ROOM
    if kind == "llama3":
        more = {"low_freq_factor": slow, "high_freq_factor": fast}
        return f"rope_llama3({both}, fast={fast}, slow={slow})", {**given, **more}, ROOM
    assert kind == "longrope"
    short, long = ([round(dice.uniform(1, 9), 3) for _ in range(6)] for _ in range(2))
    return f"longrope({both})", {**given, "short_factor": short, "long_factor": long}, int(factor) * ROOM


KINDS = ["default", "linear", "dynamic", "yarn", "longrope", "llama3", "proportional"]


@pytest.mark.parametrize("length", [ROOM - 7, ROOM, ROOM + 1, 3 * ROOM])
@pytest.mark.parametrize("kind", KINDS)
def test_llama(fresh_seed: int, kind: str, length: int) -> None:
    """Set alike: layer norms in place of RMS norms, a plain feed-forward in place of the gated one, biases on.

    YaRN and LongRoPE sharpen theirs in queries and keys, ours in scores. Proportional is p-RoPE's name there.
    """
    text, given, longest = drawn(kind, fresh_seed)
    mine = ours(text, fresh_seed, heads=LLAMA_HEADS)
    if kind == "longrope":
        for name in ("short", "long"):
            factors = torch.tensor(given[f"{name}_factor"], dtype=torch.float64)
            copy(getattr(mine.encodings()[0], f"{name}_factors"), factors)
    theirs, order = llama(mine, given, longest)
    stack, tokens, back = mine.get_submodule("decoder"), tokens_of(fresh_seed, length), torch.argsort(order)
    alike(
        lambda: mine.hidden(tokens),
        lambda: theirs(tokens).last_hidden_state,
        [
            (mine.embedding.weight, theirs.embed_tokens.weight, rooted),
            (stack.layers[0].attention.query.weight, theirs.layers[0].self_attn.q_proj.weight, lambda x: x[back]),
            (stack.layers[2].attention.key.weight, theirs.layers[2].self_attn.k_proj.weight, lambda x: x[back]),
        ],
    )


def test_llamas_dynamic_frequencies_outlast_a_long_row(fresh_seed: int) -> None:
    """Where both differ. Theirs keeps the frequencies of the longest row until one comes that is shorter than L0. Ours
    are the row's own, as YaRN's paper defines them in section 3.3: by max(1, L'/L0), L' the length at hand.
    """
    text, given, longest = drawn("dynamic", fresh_seed)
    mine = ours(text, fresh_seed, heads=LLAMA_HEADS)
    short, long = tokens_of(fresh_seed, ROOM + 10), tokens_of(fresh_seed, 3 * ROOM)
    theirs, _ = llama(mine, given, longest)
    with torch.no_grad():
        wanted = theirs(short).last_hidden_state
        theirs(long)
        later = theirs(short).last_hidden_state
        mine.hidden(long)
        found = mine.hidden(short)
    assert (found - wanted).abs().max() <= STATES * wanted.abs().max()
    assert (later - wanted).abs().max() > 1e-6


@pytest.mark.parametrize("heads", [3, 4, 6])
def test_blooms_alibi(fresh_seed: int, heads: int) -> None:
    """Set alike: no norm after the embeddings, GELU by the error function."""
    from transformers.models.bloom import modeling_bloom

    mine = ours("alibi", fresh_seed, heads=heads, feedforward=4 * WIDTH)
    config = transformers.BloomConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, n_layer=LAYERS, n_head=heads, hidden_dropout=0.0,
        attention_dropout=0.0,
    )  # fmt: skip
    theirs = transformers.BloomModel(config).double().eval()
    no_norm(theirs, "word_embeddings_layernorm")
    copy(theirs.word_embeddings.weight, mine.embedding.weight * ROOT)
    stack = mine.get_submodule("decoder")
    for layer, own in zip(theirs.h, stack.layers, strict=True):
        layer.mlp.gelu_impl = nn.GELU()
        for kind in ("weight", "bias"):
            parts = [
                getattr(getattr(own.attention, name), kind).unflatten(0, (heads, -1))
                for name in ("query", "key", "value")
            ]
            copy(getattr(layer.self_attention.query_key_value, kind), torch.stack(parts, dim=1).flatten(0, 2))
        copy_linear(layer.self_attention.dense, own.attention.out)
        copy_linear(layer.mlp.dense_h_to_4h, own.feedforward.inner)
        copy_linear(layer.mlp.dense_4h_to_h, own.feedforward.outer)
        copy_norm(layer.input_layernorm, own.attention_norm)
        copy_norm(layer.post_attention_layernorm, own.feedforward_norm)
    copy_norm(theirs.ln_f, stack.final_norm)
    tokens = tokens_of(fresh_seed)
    alike(
        lambda: mine.hidden(tokens),
        in_double(modeling_bloom)(lambda: theirs(tokens).last_hidden_state),
        [
            (mine.embedding.weight, theirs.word_embeddings.weight, rooted),
            (stack.layers[0].feedforward.inner.weight, theirs.h[0].mlp.dense_h_to_4h.weight, same),
        ],
    )
