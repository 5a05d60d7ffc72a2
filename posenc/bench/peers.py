"""Libraries that people would use instead, made to the same shape: the extra `posenc[peers]`.

Each is asked for its quickest way (x-transformers: attention by scaled_dot_product_attention, which it refuses with
T5's bias). Where a library leaves
out a bias vector or adds a mask of its own, that is its way of doing the work.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from torch import Tensor, nn

from posenc.bench.bare import BareDecoder
from posenc.bench.shape import Shape

Model = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Peer:
    """One library with one encoding. `build` makes a module that takes tokens (B,L)."""

    package: str
    module: str
    encoding: str
    attention: str
    causal: bool
    build: Callable[[Shape], nn.Module]

    @property
    def installed(self) -> bool:
        return find_spec(self.module) is not None


class _Hidden(nn.Module):
    """A model of transformers, which answers with a structure, as one that answers with hidden states."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        out: Tensor = self.model(input_ids=tokens).last_hidden_state
        return out


def _x_transformers(embedding: dict[str, Any], layers: dict[str, Any]) -> Callable[[Shape], nn.Module]:
    def build(shape: Shape) -> nn.Module:
        from x_transformers import Decoder, TransformerWrapper

        decoder = Decoder(
            dim=shape.width,
            depth=shape.layers,
            heads=shape.heads,
            attn_dim_head=shape.head_width,
            ff_mult=shape.feedforward // shape.width,
            verbose=False,
            **({"attn_flash": True} | layers),
        )
        given = {"use_abs_pos_emb": False} | embedding
        model: nn.Module = TransformerWrapper(
            num_tokens=shape.vocabulary, max_seq_len=shape.length, attn_layers=decoder, **given
        )
        return model

    return build


def _rotary(shape: Shape) -> nn.Module:
    """The bare decoder with the library's rotation."""
    from rotary_embedding_torch import RotaryEmbedding

    rotary = RotaryEmbedding(dim=shape.head_width)
    model = BareDecoder(
        layers=shape.layers,
        width=shape.width,
        heads=shape.heads,
        feedforward=shape.feedforward,
        vocabulary=shape.vocabulary,
        rotate=rotary.rotate_queries_or_keys,
    )
    model.rotary = rotary  # a part of the model, so that it goes with it to its device
    return model


def _performer(causal: bool, rotary: bool) -> Callable[[Shape], nn.Module]:
    def build(shape: Shape) -> nn.Module:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints that it has no CUDA code for a causal model
            from performer_pytorch import PerformerLM

            model: nn.Module = PerformerLM(
                num_tokens=shape.vocabulary,
                max_seq_len=shape.length,
                dim=shape.width,
                depth=shape.layers,
                heads=shape.heads,
                dim_head=shape.head_width,
                causal=causal,
                nb_features=shape.features,
                ff_mult=shape.feedforward // shape.width,
                feature_redraw_interval=None,
                rotary_position_emb=rotary,
            )
        return model

    return build


def _roformer(shape: Shape) -> nn.Module:
    from transformers import RoFormerConfig, RoFormerModel

    config = RoFormerConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=shape.feedforward,
        max_position_embeddings=shape.length,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        is_decoder=True,
        use_cache=False,
    )
    return _Hidden(RoFormerModel(config))


def _t5(shape: Shape) -> nn.Module:
    from transformers import T5Config, T5EncoderModel

    config = T5Config(
        vocab_size=shape.vocabulary,
        d_model=shape.width,
        d_kv=shape.head_width,
        d_ff=shape.feedforward,
        num_layers=shape.layers,
        num_heads=shape.heads,
        dropout_rate=0.0,
        use_cache=False,
    )
    return _Hidden(T5EncoderModel(config))


def _transformers(config: str, model: str, options: Callable[[Shape], dict[str, Any]]) -> Callable[[Shape], nn.Module]:
    """A model of transformers by the names of its two classes; `options` are what its config has beside the shape."""

    def build(shape: Shape) -> nn.Module:
        import transformers

        made = getattr(transformers, config)(vocab_size=shape.vocabulary, **options(shape))
        return _Hidden(getattr(transformers, model)(made))

    return build


def _encoder(shape: Shape) -> dict[str, Any]:
    """What models in BERT's shape call the shape."""
    return {
        "hidden_size": shape.width,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "intermediate_size": shape.feedforward,
        "max_position_embeddings": shape.length,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }


def _deberta(shape: Shape) -> dict[str, Any]:
    relative = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_biased_input": False}
    return {**_encoder(shape), **relative}


def _xlnet(shape: Shape) -> dict[str, Any]:
    sizes = {"d_model": shape.width, "n_layer": shape.layers, "n_head": shape.heads, "d_inner": shape.feedforward}
    return {**sizes, "dropout": 0.0, "use_mems_eval": False, "use_mems_train": False}


def _bloom(shape: Shape) -> dict[str, Any]:
    return {"hidden_size": shape.width, "n_layer": shape.layers, "n_head": shape.heads, "use_cache": False}


def _llama(**scaling: Any) -> Callable[[Shape], nn.Module]:
    def options(shape: Shape) -> dict[str, Any]:
        rope: dict[str, Any] = {"rope_theta": 10000.0, **scaling}
        if scaling["rope_type"] in ("yarn", "longrope"):
            rope["original_max_position_embeddings"] = shape.length
        if scaling["rope_type"] == "longrope":
            rope |= {name: [1.0] * (shape.head_width // 2) for name in ("short_factor", "long_factor")}
        return {
            "hidden_size": shape.width,
            "num_hidden_layers": shape.layers,
            "num_attention_heads": shape.heads,
            "intermediate_size": shape.feedforward * 2 // 3,  # three matrices, as many numbers as two of the whole
            "max_position_embeddings": shape.length,
            "use_cache": False,
            "rope_parameters": rope,
        }

    return _transformers("LlamaConfig", "LlamaModel", options)


def _x(encoding: str, embedding: dict[str, Any] | None = None, **layers: Any) -> Peer:
    return Peer("x-transformers", "x_transformers", encoding, "softmax", True, _x_transformers(embedding or {}, layers))


def _hugging(model: str, encoding: str, causal: bool, build: Callable[[Shape], nn.Module]) -> Peer:
    return Peer(f"transformers {model}", "transformers", encoding, "softmax", causal, build)


PEERS = [
    _x("none"),
    _x("learned", {"use_abs_pos_emb": True}),
    _x("sinusoidal", {"use_abs_pos_emb": True, "scaled_sinu_pos_emb": True}),
    _x("rope", rotary_pos_emb=True, rotary_emb_dim=64),
    _x("xpos", rotary_xpos=True, rotary_emb_dim=64),
    _x("pope", polar_pos_emb=True),
    _x("alibi", alibi_pos_bias=True),
    _x("t5", rel_pos_bias=True, attn_flash=False),
    _x("fox", attn_data_dependent_alibi=True),
    _x("cope", attn_use_cope=True, attn_flash=False),
    Peer("rotary-embedding-torch", "rotary_embedding_torch", "rope", "softmax", True, _rotary),
    _hugging("RoFormer", "rope", True, _roformer),
    _hugging("T5", "t5", False, _t5),
    _hugging("BLOOM", "alibi", True, _transformers("BloomConfig", "BloomModel", _bloom)),
    _hugging("DeBERTa", "deberta", False, _transformers("DebertaConfig", "DebertaModel", _deberta)),
    _hugging("XLNet", "transformer_xl", False, _transformers("XLNetConfig", "XLNetModel", _xlnet)),
    _hugging("Llama", "rope", True, _llama(rope_type="default")),
    _hugging("Llama", "rope_linear", True, _llama(rope_type="linear", factor=4.0)),
    _hugging("Llama", "rope_dynamic", True, _llama(rope_type="dynamic", factor=4.0)),
    _hugging("Llama", "yarn", True, _llama(rope_type="yarn", factor=4.0)),
    _hugging("Llama", "longrope", True, _llama(rope_type="longrope", factor=4.0)),
    Peer("performer-pytorch", "performer_pytorch", "learned", "performer", True, _performer(True, False)),
    Peer("performer-pytorch", "performer_pytorch", "rope", "performer", True, _performer(True, True)),
    Peer("performer-pytorch", "performer_pytorch", "learned", "performer", False, _performer(False, False)),
]
