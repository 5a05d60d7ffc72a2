"""Layers: what each adds is what the encoding answers for that layer, asked directly and computed plainly."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from posenc.api.encoding import Context, Encoding, prepare
from posenc.backbone.layers import Attention
from posenc.properties.subject import Outcome, Subject, apart, over, shown

LAYERS = 3


def context_of(
    encoding: Encoding, length: int, layer: int, generator: torch.Generator | None, coordinates: Tensor | None = None
) -> Context:
    """A context that no other layer has used: nothing that one of them made stands in it."""
    context = Context(stack=encoding.stack, queries=length, keys=length, device=torch.device("cpu"), layer=layer)
    context.generator, context.window, context.coordinates = generator, encoding.window(layer), coordinates
    return prepare(encoding, context)


def plain_scores(raw_queries: Tensor, raw_keys: Tensor, encoding: Encoding, context: Context) -> Tensor:
    """Scores (B,H,L,S) from the hooks alone: every pair of positions, with no backend and no table; nothing hidden."""
    at = context.key_positions
    queries = encoding.rotate_query(raw_queries, at, context)
    keys = encoding.rotate_key(raw_keys, at, context)
    own = encoding.overrides("pair_scores")
    pairs = encoding.pair_scores(queries, keys, context) if own else queries @ keys.transpose(-1, -2)
    scores = encoding.score_scale * pairs
    if encoding.overrides("distance_bias"):
        distances = at[0, None] - at[0, :, None]  # (L,S,A)
        asked = distances.flatten(0, 1) if at.shape[-1] > 1 else distances.flatten()
        scores = scores + encoding.distance_bias(asked, context).unflatten(1, distances.shape[:2])
    if encoding.overrides("score_bias"):
        scores = scores + encoding.score_bias(raw_queries, raw_keys, context)
    if encoding.overrides("change_scores"):
        scores = encoding.change_scores(scores, raw_queries, raw_keys, context)
    return scores


def _plainly(attention: Attention, x: Tensor, encoding: Encoding, context: Context) -> Tensor:
    """Softmax attention of x (B,L,D) from the hooks alone."""
    raw_queries, raw_keys, values = (
        project(x).unflatten(-1, (encoding.stack.heads, -1)).transpose(1, 2)
        for project in (attention.query, attention.key, attention.value)
    )
    scores = plain_scores(raw_queries, raw_keys, encoding, context)
    away = torch.arange(context.keys)[:, None] - torch.arange(context.keys)
    hidden = away < 0 if encoding.stack.causal else torch.zeros_like(away).bool()
    if context.window is not None:
        hidden = hidden | (away.abs() >= context.window)
    scores = scores.masked_fill(hidden, -torch.inf)
    weights = scores.softmax(dim=-1)
    heads = weights @ values
    if encoding.overrides("mix_values"):
        heads = heads + encoding.mix_values(weights, context)
    out: Tensor = attention.out(heads.transpose(1, 2).flatten(2))
    return out


@torch.no_grad()
def layers(subject: Subject) -> Outcome:
    """Each layer of a model of three adds what the encoding answers for that layer, computed plainly."""
    measured, differ = dict[str, float](), dict[str, float]()
    for stack, model, encoding in subject.models(layers=LAYERS):
        found: list[tuple[Attention, Tensor, Tensor]] = []

        def note(module: Any, given: Any, out: Tensor, found: list[Any] = found) -> None:
            found.append((module, given[0], out))

        part = model.stacks[0][1]
        for layer in part.layers:
            layer.get_submodule("attention").register_forward_hook(note)
        subject.run(model, subject.tokens())
        seen, biases = list(found), []
        for index, (attention, x, out) in enumerate(seen):
            model.begin_step(subject.seed, 0)
            served = encoding.at(index)
            coordinates = subject.given(model, x.shape[1]).get("coordinates")
            context = context_of(served, x.shape[1], index, part.generator, coordinates)
            context.hidden = x
            form = _plainly if "softmax" in stack else _alone
            measured[f"{stack} layer {index}"] = apart(form(attention, x, served, context), out)
            if served.overrides("distance_bias"):
                biases.append(served.distance_bias(-subject.places_of(x.shape[1]), context))
        if biases and (apart_by := max(apart(biases[0], each) for each in biases)):
            differ[stack] = apart_by
    note_of = f"; its bias by distance differs by layer: {shown(differ)}" if differ else ""
    wrong = over(measured, "what attention adds is not what the encoding answers for the layer")
    return "each layer its own", f"{shown(measured)}{note_of}", wrong


def _alone(attention: Attention, x: Tensor, encoding: Encoding, context: Context) -> Tensor:
    """The layer's attention by itself, in a pass that no other layer has entered."""
    out: Tensor = attention(x, encoding, context)
    return out
