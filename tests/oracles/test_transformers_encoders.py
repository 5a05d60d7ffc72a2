"""Encoders of the library transformers with copied weights, in float64; and XLNet, which runs both ways or causal.

Their models differ from posenc's backbone in what is no question of position, and each test says how it is set alike: a
norm after the embeddings, RMS norms, biases. Attention, its scale, masks, tables, shifts and buckets are theirs.
Weights are fresh on every run.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peers import (
    HEADS,
    INNER,
    LAYERS,
    LENGTH,
    ROOM,
    ROOT,
    VOCABULARY,
    WIDTH,
    alike,
    copy,
    copy_linear,
    copy_norm,
    in_double,
    mask_of,
    no_biases,
    no_norm,
    ours,
    rooted,
    same,
    tokens_of,
)  # fmt: skip
from torch import Tensor, nn

from posenc.backbone.layers import Layer
from posenc.backbone.transformer import Transformer

transformers = pytest.importorskip("transformers", reason="the peer transformers is not installed: nox -s oracles")
pytestmark = [pytest.mark.oracle, pytest.mark.usefixtures("one_thread")]

BERT: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
    "intermediate_size": INNER, "max_position_embeddings": ROOM, "hidden_act": "gelu", "layer_norm_eps": 1e-5,
    "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
}  # fmt: skip


def bert_layer(layer: nn.Module, own: Layer) -> None:
    """What a layer holds but for the weights of queries, keys and values."""
    copy_linear(layer.attention.output.dense, own.attention.out)
    copy_norm(layer.attention.output.LayerNorm, own.attention_norm)
    copy_linear(layer.intermediate.dense, own.feedforward.inner)
    copy_linear(layer.output.dense, own.feedforward.outer)
    copy_norm(layer.output.LayerNorm, own.feedforward_norm)


def bert_layers(theirs: nn.ModuleList, mine: Transformer) -> None:
    for layer, own in zip(theirs, mine.get_submodule("encoder").layers, strict=True):
        bert_layer(layer, own)
        for name in ("query", "key", "value"):
            copy_linear(getattr(layer.attention.self, name), getattr(own.attention, name))


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
    tokens, mask = tokens_of(fresh_seed), mask_of(padded)
    kept = mask[..., None].double()
    alike(
        lambda: mine.hidden(tokens, mask=mask) * kept,
        lambda: theirs(tokens, attention_mask=mask.long()).last_hidden_state * kept,
        [
            (mine.embedding.weight, theirs.embeddings.word_embeddings.weight, rooted),
            (mine.encodings()[0].table, theirs.embeddings.position_embeddings.weight, rooted),
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
            (mine.embedding.weight, theirs.embeddings.word_embeddings.weight, rooted),
            (own[0].attention.query.weight, other[0].attention.self.query.weight, same),
            (own[2].attention.key.weight, other[2].attention.self.key.weight, same),
        ],
    )


@pytest.mark.parametrize("clip", [5, LENGTH - 1, ROOM])
@pytest.mark.parametrize("padded", [False, True])
def test_deberta(fresh_seed: int, padded: bool, clip: int) -> None:
    """Set alike as BERT; theirs has no biases of keys, ours none of PQ. Theirs takes delta(i, j) in both terms of
    position, as ours, where equation 4 has delta(j, i) in the last.

    Of the first version: the second has no projections for positions alone, and buckets.
    """
    from transformers.models.deberta import modeling_deberta

    mine = ours(f"deberta(clip={clip})", fresh_seed, form="encoder", norm="post")
    no_biases(mine, "key")
    config = transformers.DebertaConfig(
        **BERT, relative_attention=True, max_relative_positions=clip, pos_att_type=["c2p", "p2c"],
        position_biased_input=False,
    )  # fmt: skip
    theirs = transformers.DebertaModel(config).double().eval()
    no_norm(theirs.embeddings, "LayerNorm")
    copy(theirs.embeddings.word_embeddings.weight, mine.embedding.weight * ROOT)
    encoding, stack = mine.encodings()[0], mine.get_submodule("encoder").layers
    copy(theirs.encoder.rel_embeddings.weight, encoding.table)

    def fused(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Theirs holds each head's query, key and value together."""
        return torch.cat([part.unflatten(0, (HEADS, -1)) for part in (query, key, value)], dim=1).flatten(0, 1)

    def key_part(gradient: Tensor) -> Tensor:
        return gradient.unflatten(0, (HEADS, 3, -1))[:, 1].flatten(0, 1)

    layers = [layer.attention.self for layer in theirs.encoder.layer]
    for number, (layer, own) in enumerate(zip(theirs.encoder.layer, stack, strict=True)):
        bert_layer(layer, own)
        inner, attention = layers[number], own.attention
        copy(inner.in_proj.weight, fused(attention.query.weight, attention.key.weight, attention.value.weight))
        copy(inner.q_bias, attention.query.bias)
        copy(inner.v_bias, attention.value.bias)
        copy(inner.pos_proj.weight, encoding.key_weight[number])
        copy(inner.pos_q_proj.weight, encoding.query_weight[number])
        copy(inner.pos_q_proj.bias, torch.zeros(WIDTH))
    tokens, mask = tokens_of(fresh_seed), mask_of(padded)
    kept = mask[..., None].double()
    alike(
        lambda: mine.hidden(tokens, mask=mask) * kept,
        in_double(modeling_deberta)(lambda: theirs(tokens, attention_mask=mask.long()).last_hidden_state * kept),
        [
            (mine.embedding.weight, theirs.embeddings.word_embeddings.weight, rooted),
            (encoding.table, theirs.encoder.rel_embeddings.weight, same),
            (encoding.key_weight, [inner.pos_proj.weight for inner in layers], same),
            (encoding.query_weight, [inner.pos_q_proj.weight for inner in layers], same),
            (stack[0].attention.query.bias, layers[0].q_bias, same),
            (stack[1].attention.key.weight, layers[1].in_proj.weight, key_part),
        ],
    )


@pytest.mark.parametrize(("kind", "padded"), [("bi", False), ("bi", True), ("uni", False)])
def test_xlnets_attention_of_transformer_xl(fresh_seed: int, kind: str, padded: bool) -> None:
    """Set alike: no biases in attention; segments are left out. In both u, v and W are each layer's own.

    Padded rows are not among what is causal: theirs fails to add up both masks of more than one row.
    """
    from transformers.models.xlnet import modeling_xlnet

    side = {"bi": "encoder", "uni": "decoder"}[kind]
    mine = ours("transformer_xl", fresh_seed, form=side, norm="post")
    no_biases(mine, "query", "key", "value", "out")
    config = transformers.XLNetConfig(
        vocab_size=VOCABULARY, d_model=WIDTH, n_layer=LAYERS, n_head=HEADS, d_inner=INNER, ff_activation="gelu",
        attn_type=kind, layer_norm_eps=1e-5, dropout=0.0,
    )  # fmt: skip
    theirs = transformers.XLNetModel(config).double().eval()
    copy(theirs.word_embedding.weight, mine.embedding.weight * ROOT)
    encoding, stack = mine.encodings()[0], mine.get_submodule(side).layers

    def in_heads(x: Tensor) -> Tensor:
        """(H K, D) as theirs has it: (D,H,K)."""
        return x.T.unflatten(1, (HEADS, -1))

    def back(x: Tensor) -> Tensor:
        """(...,D,H,K) as ours."""
        return x.flatten(-2).transpose(-1, -2)

    attentions = [layer.rel_attn for layer in theirs.layer]
    for number, (layer, own) in enumerate(zip(theirs.layer, stack, strict=True)):
        inner, attention = layer.rel_attn, own.attention
        for target, source in ((inner.q, attention.query), (inner.k, attention.key), (inner.v, attention.value)):
            copy(target, in_heads(source.weight))
        copy(inner.o, attention.out.weight.unflatten(1, (HEADS, -1)))
        copy(inner.r, in_heads(encoding.weight[number]))
        copy(inner.r_w_bias, encoding.u[number])
        copy(inner.r_r_bias, encoding.v[number])
        copy_norm(inner.layer_norm, own.attention_norm)
        copy_linear(layer.ff.layer_1, own.feedforward.inner)
        copy_linear(layer.ff.layer_2, own.feedforward.outer)
        copy_norm(layer.ff.layer_norm, own.feedforward_norm)
    tokens, mask = tokens_of(fresh_seed), mask_of(padded)
    kept = mask[..., None].double()
    alike(
        lambda: mine.hidden(tokens, **({"mask": mask} if padded else {})) * kept,
        in_double(modeling_xlnet)(
            lambda: theirs(tokens, **({"attention_mask": mask.double()} if padded else {})).last_hidden_state * kept
        ),
        [
            (mine.embedding.weight, theirs.word_embedding.weight, rooted),
            (encoding.u, [inner.r_w_bias for inner in attentions], same),
            (encoding.v, [inner.r_r_bias for inner in attentions], same),
            (encoding.weight, [inner.r for inner in attentions], back),
            (stack[1].attention.key.weight, attentions[1].k, back),
        ],
    )


@pytest.mark.parametrize("length", [LENGTH, 150])
def test_t5_with_its_buckets(fresh_seed: int, length: int) -> None:
    """Set alike: layer norms in place of RMS norms, no biases; T5's missing scale goes into its query weights."""
    mine = ours("t5", fresh_seed, form="encoder-decoder", activation="relu")
    no_biases(mine)
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
