"""Whole models with copied weights, against those of the library transformers, in float64.

Their models differ from posenc's backbone in what is no question of position, and each test says how it is set alike: a
norm after BERT's embeddings, RMS norms, gated feed-forwards, the tanh form of GELU. Attention, its scale, masks,
rotations, tables and buckets are theirs. Weights are fresh on every run.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from posenc.backbone.config import BackboneConfig
from posenc.backbone.transformer import Transformer

transformers = pytest.importorskip("transformers", reason="the peer transformers is not installed: nox -s oracles")
pytestmark = [pytest.mark.oracle, pytest.mark.usefixtures("one_thread")]

WIDTH, HEADS, LAYERS, INNER, VOCABULARY, LENGTH, ROOM = 24, 3, 3, 40, 31, 13, 20
ROOT = math.sqrt(WIDTH)
STATES, GRADIENTS = 1e-12, 1e-11


def ours(name: str, seed: int, **changes: Any) -> Transformer:
    """A model in float64 whose every parameter is drawn anew, norms and biases too."""
    shape = {
        "layers": LAYERS,
        "width": WIDTH,
        "heads": HEADS,
        "feedforward": INNER,
        "vocabulary": VOCABULARY,
        **changes,
    }
    model = Transformer(BackboneConfig(**shape), name, ROOM).initialise(seed).double().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            spread = 0.3 if parameter.dim() > 1 else 0.2
            parameter.add_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * spread)
    return model


def tokens_of(seed: int, length: int = LENGTH) -> Tensor:
    """Never 0: their embedding of padding has no gradient."""
    return torch.randint(1, VOCABULARY, (2, length), generator=torch.Generator().manual_seed(seed))


def alike(
    mine: Callable[[], Tensor],
    peers: Callable[[], Tensor],
    pairs: list[tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]],
) -> None:
    """States, and gradients of a random functional of them in the weights named; the last part lays theirs as ours."""
    one, other = mine(), peers()
    assert one.shape == other.shape
    largest = float(one.detach().abs().max())
    assert largest > 0.1
    assert (one - other).detach().abs().max() <= STATES * max(1.0, largest)
    direction = torch.randn(one.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
    for states in (one, other):
        (states * direction).sum().backward()
    for parameter, theirs, laid in pairs:
        assert parameter.grad is not None
        assert theirs.grad is not None
        wanted = laid(theirs.grad)
        assert parameter.grad.abs().max() > 1e-3
        scale = max(1.0, float(parameter.grad.abs().max()))
        assert (parameter.grad - wanted).abs().max() <= GRADIENTS * scale


def same(x: Tensor) -> Tensor:
    return x


def transposed(x: Tensor) -> Tensor:
    return x.T


def copy(target: Tensor, value: Tensor) -> None:
    assert target.shape == value.shape
    with torch.no_grad():
        target.copy_(value)


def copy_linear(target: nn.Module, source: nn.Linear, order: Tensor | None = None) -> None:
    """`order`: where each of our output channels comes from, as theirs has them."""
    weight, bias = source.weight, source.bias
    copy(target.weight, weight if order is None else weight[order])
    copy(target.bias, bias if order is None else bias[order])


def copy_norm(target: nn.Module, source: nn.LayerNorm) -> None:
    copy(target.weight, source.weight)
    copy(target.bias, source.bias)


def no_norm(module: nn.Module, name: str) -> None:
    setattr(module, name, nn.Identity())


def halves(rotated: int, width: int = WIDTH // HEADS) -> Tensor:
    """For each channel of a head in the layout of two halves, our interleaved one; what is not turned stays."""
    order = [*range(0, rotated, 2), *range(1, rotated, 2), *range(rotated, width)]
    return torch.tensor(order)


def heads_of(order: Tensor) -> Tensor:
    """The same for all heads one after another."""
    width = WIDTH // HEADS
    return torch.cat([order + head * width for head in range(HEADS)])


def exact_rotation(positions: Tensor, rotated: int, base: float = 10000.0) -> tuple[Tensor, Tensor]:
    """cos and sin in the layout of two halves, (1,L,R), in float64: theirs are made in float32."""
    angles = positions.double()[..., None] * base ** -(torch.arange(0, rotated, 2, dtype=torch.float64) / rotated)
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos(), angles.sin()


def bert_layers(theirs: nn.ModuleList, mine: Transformer) -> None:
    for layer, own in zip(theirs, mine.get_submodule("encoder").layers, strict=True):
        attention = layer.attention
        for name in ("query", "key", "value"):
            copy_linear(getattr(attention.self, name), getattr(own.attention, name))
        copy_linear(attention.output.dense, own.attention.out)
        copy_norm(attention.output.LayerNorm, own.attention_norm)
        copy_linear(layer.intermediate.dense, own.feedforward.inner)
        copy_linear(layer.output.dense, own.feedforward.outer)
        copy_norm(layer.output.LayerNorm, own.feedforward_norm)


BERT: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
    "intermediate_size": INNER, "max_position_embeddings": ROOM, "hidden_act": "gelu", "layer_norm_eps": 1e-5,
    "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
}  # fmt: skip


@pytest.mark.parametrize("padded", [False, True])
def test_bert(fresh_seed: int, padded: bool) -> None:
    """Set alike: no norm after the embeddings, one kind of segment with a vector of zeros, eps 1e-5."""
    mine = ours("learned", fresh_seed, form="encoder", norm="post")
    config = transformers.BertConfig(**BERT, attn_implementation="sdpa")
    theirs = transformers.BertModel(config, add_pooling_layer=False).double().eval()
    no_norm(theirs.embeddings, "LayerNorm")
    copy(theirs.embeddings.word_embeddings.weight, mine.embedding.weight * ROOT)
    copy(theirs.embeddings.position_embeddings.weight, mine.encodings()[0].table * ROOT)
    copy(theirs.embeddings.token_type_embeddings.weight, torch.zeros(2, WIDTH))
    bert_layers(theirs.encoder.layer, mine)
    tokens, mask = tokens_of(fresh_seed), torch.ones(2, LENGTH, dtype=torch.bool)
    if padded:
        mask[1, 9:] = False
    kept = mask[..., None].double()
    alike(
        lambda: mine.hidden(tokens, mask=mask) * kept,
        lambda: theirs(tokens, attention_mask=mask.long()).last_hidden_state * kept,
        [
            (mine.embedding.weight, theirs.embeddings.word_embeddings.weight, lambda x: x * ROOT),
            (mine.encodings()[0].table, theirs.embeddings.position_embeddings.weight, lambda x: x * ROOT),
            (
                mine.get_submodule("encoder").layers[0].attention.query.weight,
                theirs.encoder.layer[0].attention.self.query.weight,
                same,
            ),
        ],
    )


def test_roformer(fresh_seed: int) -> None:
    """Set alike as BERT; their table of sines is made again in float64."""
    mine = ours("rope", fresh_seed, form="encoder", norm="post")
    config = transformers.RoFormerConfig(**BERT, embedding_size=WIDTH, attn_implementation="eager")
    theirs = transformers.RoFormerModel(config).double().eval()
    no_norm(theirs.embeddings, "LayerNorm")
    copy(theirs.embeddings.word_embeddings.weight, mine.embedding.weight * ROOT)
    copy(theirs.embeddings.token_type_embeddings.weight, torch.zeros(2, WIDTH))
    bert_layers(theirs.encoder.layer, mine)
    width = WIDTH // HEADS
    angles = torch.arange(ROOM)[:, None] * 10000.0 ** -(torch.arange(0, width, 2, dtype=torch.float64) / width)
    copy(theirs.encoder.embed_positions.weight, torch.cat((angles.sin(), angles.cos()), dim=-1))
    tokens = tokens_of(fresh_seed)
    own, other = mine.get_submodule("encoder").layers, theirs.encoder.layer
    alike(
        lambda: mine.hidden(tokens),
        lambda: theirs(tokens).last_hidden_state,
        [
            (mine.embedding.weight, theirs.embeddings.word_embeddings.weight, lambda x: x * ROOT),
            (own[0].attention.query.weight, other[0].attention.self.query.weight, same),
            (own[2].attention.key.weight, other[2].attention.self.key.weight, same),
        ],
    )


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
            (mine.encodings()[0].table, theirs.wpe.weight, lambda x: x * ROOT),
            (stack.layers[0].attention.query.weight, theirs.h[0].attn.c_attn.weight, lambda x: x.T[:WIDTH]),
            (stack.layers[1].feedforward.inner.weight, theirs.h[1].mlp.c_fc.weight, transposed),
        ],
    )


def test_gpt_neox_with_partial_rotary(fresh_seed: int) -> None:
    """Set alike: parts one after another, not in parallel; angles in float64. Theirs turns halves, ours pairs."""
    mine = ours("rope(fraction=0.25)", fresh_seed)
    rotated = WIDTH // HEADS // 4
    config = transformers.GPTNeoXConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
        intermediate_size=INNER, max_position_embeddings=ROOM, hidden_act="gelu", rotary_pct=0.25,
        use_parallel_residual=False, layer_norm_eps=1e-5, attn_implementation="sdpa",
    )  # fmt: skip
    theirs = transformers.GPTNeoXModel(config).double().eval()
    theirs.rotary_emb.forward = lambda x, position_ids: exact_rotation(position_ids, rotated)
    order = heads_of(halves(rotated))
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
        lambda: theirs(tokens).last_hidden_state,
        [
            (mine.embedding.weight, theirs.embed_in.weight, lambda x: x * ROOT),
            (stack.layers[0].attention.query.weight, theirs.layers[0].attention.query_key_value.weight, query_part),
        ],
    )


def test_llama(fresh_seed: int) -> None:
    """Set alike: layer norms in place of RMS norms, a plain feed-forward in place of the gated one, biases on."""
    mine = ours("rope(base=500000)", fresh_seed)
    width = WIDTH // HEADS
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
        num_key_value_heads=HEADS, intermediate_size=INNER, max_position_embeddings=ROOM, attention_bias=True,
        attn_implementation="sdpa",
    )  # fmt: skip
    theirs = transformers.LlamaModel(config).eval()
    theirs.rotary_emb.forward = lambda x, position_ids: exact_rotation(position_ids, width, 500000.0)
    order, stack = heads_of(halves(width)), mine.get_submodule("decoder")
    for layer, own in zip(theirs.layers, stack.layers, strict=True):
        layer.input_layernorm, layer.post_attention_layernorm = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        layer.mlp = nn.Sequential(nn.Linear(WIDTH, INNER), nn.GELU(), nn.Linear(INNER, WIDTH))
        theirs.double()
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
    tokens, back = tokens_of(fresh_seed), torch.argsort(order)
    alike(
        lambda: mine.hidden(tokens),
        lambda: theirs(tokens).last_hidden_state,
        [
            (mine.embedding.weight, theirs.embed_tokens.weight, lambda x: x * ROOT),
            (stack.layers[0].attention.query.weight, theirs.layers[0].self_attn.q_proj.weight, lambda x: x[back]),
            (stack.layers[2].attention.key.weight, theirs.layers[2].self_attn.k_proj.weight, lambda x: x[back]),
        ],
    )


@pytest.mark.parametrize("length", [LENGTH, 150])
def test_t5_with_its_buckets(fresh_seed: int, length: int) -> None:
    """Set alike: layer norms in place of RMS norms, no biases; T5's missing scale goes into its query weights."""
    mine = ours("t5", fresh_seed, form="encoder-decoder", activation="relu")
    with torch.no_grad():
        for name, parameter in mine.named_parameters():
            if name.endswith("bias") and "norm" not in name:
                parameter.zero_()
    config = transformers.T5Config(
        vocab_size=VOCABULARY, d_model=WIDTH, d_kv=WIDTH // HEADS, d_ff=INNER, num_layers=LAYERS,
        num_decoder_layers=LAYERS,
        num_heads=HEADS, dropout_rate=0.0, feed_forward_proj="relu",
    )  # fmt: skip
    theirs = transformers.T5Model(config).eval()
    scale = (WIDTH // HEADS) ** -0.5
    for side in ("encoder", "decoder"):
        stack, peer = mine.get_submodule(side), getattr(theirs, side)
        for layer, own in zip(peer.block, stack.layers, strict=True):
            parts = [(layer.layer[0].SelfAttention, own.attention)]
            norms = [own.attention_norm]
            if side == "decoder":
                parts.append((layer.layer[1].EncDecAttention, own.cross_attention))
                norms.append(own.cross_norm)
            for index, norm in enumerate([*norms, own.feedforward_norm]):
                layer.layer[index].layer_norm = nn.LayerNorm(WIDTH).double()
                copy_norm(layer.layer[index].layer_norm, norm)
            theirs.double()
            for target, source in parts:
                copy(target.q.weight, source.query.weight * scale)
                copy(target.k.weight, source.key.weight)
                copy(target.v.weight, source.value.weight)
                copy(target.o.weight, source.out.weight)
            copy(layer.layer[-1].DenseReluDense.wi.weight, own.feedforward.inner.weight)
            copy(layer.layer[-1].DenseReluDense.wo.weight, own.feedforward.outer.weight)
        table = peer.block[0].layer[0].SelfAttention.relative_attention_bias.weight
        copy(table, stack.encoding.table)
        peer.final_layer_norm = nn.LayerNorm(WIDTH).double()
        copy_norm(peer.final_layer_norm, stack.final_norm)
    copy(theirs.shared.weight, mine.embedding.weight * ROOT)
    source, target = tokens_of(fresh_seed, length), tokens_of(fresh_seed + 1, length - 4)
    tables = [mine.get_submodule(side).encoding.table for side in ("encoder", "decoder")]
    alike(
        lambda: mine.decode(target, mine.hidden(source)),
        lambda: theirs(input_ids=source, decoder_input_ids=target).last_hidden_state,
        [
            (own, getattr(theirs, side).block[0].layer[0].SelfAttention.relative_attention_bias.weight, same)
            for own, side in zip(tables, ("encoder", "decoder"), strict=True)
        ],
    )


class WithoutRounding:
    """torch's functions as BLOOM's file has them, but for a softmax in the precision of what it is given."""

    def __getattr__(self, name: str) -> Any:
        return getattr(nn.functional, name)

    @staticmethod
    def softmax(x: Tensor, dim: int, dtype: Any = None) -> Tensor:
        return nn.functional.softmax(x, dim=dim)


def test_blooms_alibi(fresh_seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set alike: no norm after the embeddings, GELU by the error function, four heads (slopes of a power of two)."""
    from transformers.models.bloom import modeling_bloom

    monkeypatch.setattr(modeling_bloom, "F", WithoutRounding())
    mine = ours("alibi", fresh_seed, heads=4, feedforward=4 * WIDTH)
    config = transformers.BloomConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, n_layer=LAYERS, n_head=4, hidden_dropout=0.0, attention_dropout=0.0,
    )  # fmt: skip
    theirs = transformers.BloomModel(config).double().eval()
    no_norm(theirs, "word_embeddings_layernorm")
    copy(theirs.word_embeddings.weight, mine.embedding.weight * ROOT)
    stack = mine.get_submodule("decoder")
    for layer, own in zip(theirs.h, stack.layers, strict=True):
        layer.mlp.gelu_impl = nn.GELU()
        for kind in ("weight", "bias"):
            parts = [
                getattr(getattr(own.attention, name), kind).unflatten(0, (4, -1)) for name in ("query", "key", "value")
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
        lambda: theirs(tokens).last_hidden_state,
        [
            (mine.embedding.weight, theirs.word_embeddings.weight, lambda x: x * ROOT),
            (stack.layers[0].feedforward.inner.weight, theirs.h[0].mlp.dense_h_to_4h.weight, same),
        ],
    )
