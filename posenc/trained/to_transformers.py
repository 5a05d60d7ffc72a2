"""A trained model as one of the library transformers, where that has one that computes the same.

In a decoder GPT-NeoX for RoPE and GPT-2 for learned, sinusoidal or no positions; in an encoder RoFormer and BERT, of
models with `backbone.embedding_norm`. Theirs multiply embeddings by nothing: ours are multiplied by sqrt(D) once, here.
GPT-NeoX turns halves of a head where posenc turns neighbours: its channels are moved.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from posenc.api.encoding import Context, Encoding, prepare
from posenc.backbone.transformer import Transformer
from posenc.common.errors import NotPossibleError
from posenc.config.settings import Settings
from posenc.encodings.learned import Learned
from posenc.encodings.none import NoEncoding
from posenc.encodings.rope import Rope
from posenc.encodings.sinusoidal import Sinusoidal
from posenc.encodings.t5 import T5

ADDED = (Learned, NoEncoding, Sinusoidal)
"""Encodings that are a table which is added to embeddings."""
UNLIMITED = 2048
"""Positions of a model of theirs whose encoding has no end here: theirs needs one."""


def why_not(settings: Settings, model: Transformer) -> str | None:
    """Why transformers has no model that computes the same; None where it has."""
    backbone, kind = settings.backbone, type(model.encodings()[0])
    where = f"not possible: {settings.encoding_name} in a model of form {backbone.form!r}"
    if backbone.form == "encoder-decoder":
        return f"{where}: theirs has RMS norms and no biases (T5), or norms the embeddings (BART)"
    if backbone.attention != "softmax":
        return "not possible: transformers has no model with this linear attention"
    for name, usual in (("scale", "sqrt"), ("convolution", 0)):
        if getattr(backbone, name) != usual:
            return f"not possible: backbone.{name} = {getattr(backbone, name)!r}: theirs has none"
    if backbone.form == "decoder":
        if backbone.norm != "pre" or backbone.embedding_norm:
            return f"{where}: GPT-2 and GPT-NeoX have norms before each part, and none of the embeddings"
        return None if kind in (*ADDED, Rope) else f"{where}: transformers has no such decoder"
    if kind is T5:
        return f"{where}: T5's encoder has RMS norms and no biases, and here are layer norms and biases"
    if kind not in (*ADDED, Rope):
        return f"{where}: transformers has no such encoder"
    if backbone.norm != "post" or not backbone.embedding_norm:
        return (
            f"{where}: BERT and RoFormer have norms after each part and one after the embeddings:"
            " backbone.norm = 'post' and backbone.embedding_norm = true are such a model"
        )
    if kind is Rope:
        encoding = model.encodings()[0]
        assert isinstance(encoding, Rope)
        if (encoding.base, encoding.fraction) != (10000.0, 1.0):
            return f"{where}: RoFormer turns all channels, with base 10,000"
        if backbone.head != "masked":
            return f"{where}: RoFormer's head is another one where a row has one answer"
    if backbone.head not in ("masked", "class"):
        return f"{where}: BERT has no head {backbone.head!r}"
    return None


def converted(settings: Settings, model: Transformer) -> nn.Module:
    """The same model in transformers' classes, in evaluation mode.

    Raises:
        NotPossibleError: transformers has no such model, or is not installed.
    """
    if (reason := why_not(settings, model)) is not None:
        raise NotPossibleError(reason)
    try:
        import transformers
    except ImportError as error:
        raise NotPossibleError(
            f"not possible: transformers cannot be imported ({error}): pip install 'posenc[transformers]'"
        ) from None
    encoding, form = model.encodings()[0], settings.backbone.form
    with torch.no_grad():
        if form == "encoder":
            found = _encoder(transformers, settings, model)
        elif isinstance(encoding, Rope):
            found = _gpt_neox(transformers, settings, model, encoding)
        else:
            found = _gpt2(transformers, settings, model)
    return found.eval()


def _stack(model: Transformer) -> Any:
    """The one stack; its layers are posenc's, and theirs are of a library without types: mypy has no say here."""
    ((_, stack),) = model.stacks
    return stack


def _room(settings: Settings, encoding: Encoding) -> int:
    return encoding.max_length or max(UNLIMITED, settings.max_length)


def _copy(target: Any, source: Any) -> None:
    """Weight and bias of a linear layer or a norm."""
    for name in ("weight", "bias"):
        getattr(target, name).copy_(getattr(source, name))


def _added(settings: Settings, stack: Any, room: int) -> Tensor:
    """What an encoding adds to the embeddings of a row's tokens (room,D)."""
    encoding, like = stack.encoding, next(stack.parameters())
    context = prepare(encoding, Context(stack=encoding.stack, queries=room, keys=room, device=like.device))
    nothing = torch.zeros(1, room, settings.backbone.width, dtype=like.dtype)
    added: Tensor = encoding.embed(nothing, context.query_positions, context)[0]
    return added


def _gpt2(library: Any, settings: Settings, model: Transformer) -> Any:
    backbone, stack = settings.backbone, _stack(model)
    room = _room(settings, stack.encoding)
    config = library.GPT2Config(
        vocab_size=backbone.vocabulary, n_embd=backbone.width, n_layer=backbone.layers, n_head=backbone.heads,
        n_inner=backbone.feedforward, n_positions=room, activation_function=backbone.activation,
        resid_pdrop=backbone.dropout, embd_pdrop=backbone.dropout, attn_pdrop=backbone.attention_dropout,
        layer_norm_epsilon=1e-5, tie_word_embeddings=False, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    found: Any = library.GPT2LMHeadModel(config)
    theirs = found.transformer
    theirs.wte.weight.copy_(model.embedding.weight * math.sqrt(backbone.width))
    theirs.wpe.weight.copy_(_added(settings, stack, room))
    for layer, own in zip(theirs.h, stack.layers, strict=True):
        parts = [own.attention.query, own.attention.key, own.attention.value]
        layer.attn.c_attn.weight.copy_(torch.cat([part.weight for part in parts]).T)
        layer.attn.c_attn.bias.copy_(torch.cat([part.bias for part in parts]))
        for target, source in (
            (layer.attn.c_proj, own.attention.out),
            (layer.mlp.c_fc, own.feedforward.inner),
            (layer.mlp.c_proj, own.feedforward.outer),
        ):
            target.weight.copy_(source.weight.T)  # theirs holds it the other way round
            target.bias.copy_(source.bias)
        _copy(layer.ln_1, own.attention_norm)
        _copy(layer.ln_2, own.feedforward_norm)
    _copy(theirs.ln_f, stack.final_norm)
    found.lm_head.weight.copy_(_output(model))
    return found


def _gpt_neox(library: Any, settings: Settings, model: Transformer, rope: Rope) -> Any:
    backbone, stack = settings.backbone, _stack(model)
    config = library.GPTNeoXConfig(
        vocab_size=backbone.vocabulary, hidden_size=backbone.width, num_hidden_layers=backbone.layers,
        num_attention_heads=backbone.heads, intermediate_size=backbone.feedforward,
        max_position_embeddings=_room(settings, rope), hidden_act=backbone.activation, use_parallel_residual=False,
        attention_dropout=backbone.attention_dropout, hidden_dropout=backbone.dropout,
        rope_parameters={
            "rope_type": "default", "rope_theta": rope.base, "partial_rotary_factor": rope.fraction,
        },
        layer_norm_eps=1e-5, tie_word_embeddings=False, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    found: Any = library.GPTNeoXForCausalLM(config)
    theirs, width = found.gpt_neox, backbone.width // backbone.heads
    turned = round(width * rope.fraction)
    one = torch.tensor([*range(0, turned, 2), *range(1, turned, 2), *range(turned, width)])
    order = torch.cat([one + head * width for head in range(backbone.heads)])
    theirs.embed_in.weight.copy_(model.embedding.weight * math.sqrt(backbone.width))
    for layer, own in zip(theirs.layers, stack.layers, strict=True):
        attention = own.attention
        for name in ("weight", "bias"):
            query, key, value = (getattr(getattr(attention, part), name) for part in ("query", "key", "value"))
            parts = [part.unflatten(0, (backbone.heads, -1)) for part in (query[order], key[order], value)]
            getattr(layer.attention.query_key_value, name).copy_(torch.cat(parts, dim=1).flatten(0, 1))
        _copy(layer.attention.dense, attention.out)
        _copy(layer.mlp.dense_h_to_4h, own.feedforward.inner)
        _copy(layer.mlp.dense_4h_to_h, own.feedforward.outer)
        _copy(layer.input_layernorm, own.attention_norm)
        _copy(layer.post_attention_layernorm, own.feedforward_norm)
    _copy(theirs.final_layer_norm, stack.final_norm)
    found.get_output_embeddings().weight.copy_(_output(model))
    return found


def _output(model: Transformer) -> Tensor:
    found: Tensor = model.embedding.weight if model.config.tied else model.output.weight
    return found


def _encoder(library: Any, settings: Settings, model: Transformer) -> Any:
    backbone, stack = settings.backbone, _stack(model)
    rotary, room = isinstance(stack.encoding, Rope), _room(settings, stack.encoding)
    kind = "RoFormer" if rotary else "Bert"
    more = {"embedding_size": backbone.width} if rotary else {}
    classes = {"num_labels": backbone.outputs} if backbone.outputs else {}
    config = getattr(library, f"{kind}Config")(
        vocab_size=backbone.vocabulary, hidden_size=backbone.width, num_hidden_layers=backbone.layers,
        num_attention_heads=backbone.heads, intermediate_size=backbone.feedforward, max_position_embeddings=room,
        hidden_act=backbone.activation, hidden_dropout_prob=backbone.dropout,
        attention_probs_dropout_prob=backbone.attention_dropout,
        layer_norm_eps=1e-5, tie_word_embeddings=False, type_vocab_size=1, pad_token_id=None, **more, **classes,
    )  # fmt: skip
    masked = backbone.head == "masked"
    found: Any = getattr(library, f"{kind}For{'MaskedLM' if masked else 'SequenceClassification'}")(config)
    theirs = found.roformer if rotary else found.bert
    theirs.embeddings.word_embeddings.weight.copy_(model.embedding.weight * math.sqrt(backbone.width))
    theirs.embeddings.token_type_embeddings.weight.zero_()
    if not rotary:
        theirs.embeddings.position_embeddings.weight.copy_(_added(settings, stack, room))
    _copy(theirs.embeddings.LayerNorm, stack.embedding_norm)
    for layer, own in zip(theirs.encoder.layer, stack.layers, strict=True):
        _encoder_layer(layer, own)
    head: Any = model.head
    if masked:
        _copy(found.cls.predictions.transform.dense, head.dense)
        _copy(found.cls.predictions.transform.LayerNorm, head.norm)
        found.cls.predictions.decoder.weight.copy_(model.embedding.weight)
        found.cls.predictions.decoder.bias.copy_(head.bias)
        found.cls.predictions.bias.copy_(head.bias)
    else:
        _copy(theirs.pooler.dense, head.pooler)
        _copy(found.classifier, head.out)
    return found


def _encoder_layer(layer: Any, own: Any) -> None:
    for name in ("query", "key", "value"):
        _copy(getattr(layer.attention.self, name), getattr(own.attention, name))
    _copy(layer.attention.output.dense, own.attention.out)
    _copy(layer.attention.output.LayerNorm, own.attention_norm)
    _copy(layer.intermediate.dense, own.feedforward.inner)
    _copy(layer.output.dense, own.feedforward.outer)
    _copy(layer.output.LayerNorm, own.feedforward_norm)
