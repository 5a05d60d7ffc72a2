"""Torch's own layers as a second derivation of the backbone."""

from __future__ import annotations

import pytest
import torch
from models import (
    FORMS,
    exact,
    model_of,
    tokens_of,
)  # fmt: skip
from torch import Tensor, nn
from torch.nn import functional

from posenc.backbone.config import BackboneConfig

pytestmark = pytest.mark.usefixtures("one_thread")


def copy_attention(theirs: nn.MultiheadAttention, ours: nn.Module) -> None:
    parts = [ours.get_submodule(name) for name in ("query", "key", "value")]
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([part.get_parameter("weight") for part in parts]))
        theirs.in_proj_bias.copy_(torch.cat([part.get_parameter("bias") for part in parts]))
    theirs.out_proj.load_state_dict(ours.get_submodule("out").state_dict())


def torchs_layer(layer: nn.Module, config: BackboneConfig, cross: bool) -> nn.Module:
    kind = nn.TransformerDecoderLayer if cross else nn.TransformerEncoderLayer
    theirs = kind(
        config.width,
        config.heads,
        config.feedforward,
        dropout=0.0,
        activation=config.activation,
        batch_first=True,
        norm_first=config.norm == "pre",
        dtype=torch.float64,
    )
    copy_attention(theirs.self_attn, layer.get_submodule("attention"))
    names = [("linear1", "feedforward.inner"), ("linear2", "feedforward.outer"), ("norm1", "attention_norm")]
    if cross:
        copy_attention(theirs.multihead_attn, layer.get_submodule("cross_attention"))  # type: ignore[arg-type]
        names += [("norm2", "cross_norm"), ("norm3", "feedforward_norm")]
    else:
        names += [("norm2", "feedforward_norm")]
    for their_name, our_name in names:
        theirs.get_submodule(their_name).load_state_dict(layer.get_submodule(our_name).state_dict())
    return theirs


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("tied", [True, False])
def test_the_backbone_without_an_encoding_is_torchs_own_layers(
    form: str, norm: str, activation: str, tied: bool
) -> None:
    model = exact("none", form=form, norm=norm, activation=activation, tied=tied)
    source, targets = tokens_of(2, 6), tokens_of(2, 5, seed=2)
    scale = 16**0.5

    def run(name: str, x: Tensor, memory: Tensor | None = None) -> Tensor:
        stack = model.get_submodule(name)
        ahead = torch.ones(x.shape[1], x.shape[1]).triu(1).bool() if name == "decoder" else None
        for layer in stack.layers:  # type: ignore[union-attr]
            theirs = torchs_layer(layer, model.config, memory is not None)
            x = theirs(x, memory, tgt_mask=ahead) if memory is not None else theirs(x, src_mask=ahead)
        if norm == "post":
            return x
        final = stack.get_submodule("final_norm")
        return functional.layer_norm(x, (16,), final.get_parameter("weight"), final.get_parameter("bias"))

    table = model.embedding.weight
    if form == "encoder-decoder":
        expected = run("decoder", scale * table[targets], run("encoder", scale * table[source]))
        got = model(source, targets)
    else:
        expected, got = run(form, scale * table[source]), model(source)
    expected = expected @ (table if tied else model.output.weight).T
    torch.testing.assert_close(got, expected, atol=1e-11, rtol=1e-11)


def test_tokens_enter_with_a_root_mean_square_of_1_whatever_the_width() -> None:
    for width in (16, 64):
        x = model_of(width=width, vocabulary=2000).embed(torch.arange(2000))
        assert x.square().mean().sqrt().item() == pytest.approx(1, abs=0.02)
