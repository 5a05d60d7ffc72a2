"""Small models of each kind of encoding, exact ones, and what they answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from posenc.api import registry
from posenc.api.stack import Stack
from posenc.backbone.config import BackboneConfig
from posenc.backbone.transformer import Transformer

STACK = Stack(layers=2, heads=2, width=16, head_width=8, max_length=64, causal=True)
FORMS = ["decoder", "encoder", "encoder-decoder"]
VOCABULARY = 20
KINDS = (
    "none",
    "sinusoidal",
    "learned",
    "t5",
    "shaw",
    "nezha",
    "rope",
    "rope_outside",
    "kerple",
    "fox",
    "cope",
    "dape_v2",
)
"""Of the built-in encodings one or two of each kind: which hooks, shared or by layer, learnt or not, causal alone or
not. What holds for all of them by what they declare is tried on these; each is checked whole by `nox -s slow`."""


def serves(name: str, form: str) -> bool:
    """Whether an encoding can be in each stack of a form."""
    directions = {"decoder": {"causal"}, "encoder": {"bidirectional"}}.get(form, {"causal", "bidirectional"})
    return directions <= registry.create(name, STACK).directions


def built_in(attention: str) -> list[str]:
    """Those of KINDS that this attention takes, and some compositions."""
    names = [name for name in KINDS if registry.create(name, STACK).why_not(attention) is None]
    return names + (["sinusoidal+rope", "t5+shaw+rope"] if attention == "softmax" else ["learned+rope_outside"])


def served(attention: str, *forms: str) -> list[tuple[str, str]]:
    """Those names, each with the forms of these that it can be in."""
    return [(name, form) for form in forms for name in built_in(attention) if serves(name, form)]


def every(*forms: str) -> pytest.MarkDecorator:
    """Each attention with each encoding that it takes, and of several forms with each that it can be in."""
    cases = [(attention, *case) for attention in ("softmax", "performer") for case in served(attention, *forms)]
    if len(forms) == 1:
        cases = [case[:2] for case in cases]
    names = ("attention", "name", "form")[: 2 if len(forms) == 1 else 3]
    return pytest.mark.parametrize(names, cases, ids=["-".join(case) for case in cases])


EVERY = every("decoder")
SOFTMAX = pytest.mark.parametrize("name", built_in("softmax"))


CACHED = [name for name in built_in("softmax") if registry.create(name, STACK).cached_decoding]


def model_of(name: str = "none", *, seed: int = 3, max_length: int = 64, **changes: Any) -> Transformer:
    shape = {"layers": 2, "width": 16, "heads": 2, "feedforward": 24, "vocabulary": VOCABULARY}
    shape |= {"features": 12, "chunk": 4}
    return Transformer(BackboneConfig(**(shape | changes)), name, max_length).initialise(seed)


def exact(name: str = "none", *, larger: float = 2.0, **changes: Any) -> Transformer:
    """In float64, ready to answer, with parameters far from a start where attention is nearly even."""
    model = model_of(name, **changes).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1 or not parameter.any():
                noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel()))
                parameter.add_(0.3 * noise)
            parameter.mul_(larger)
    return model


_kept: dict[Any, Transformer] = {}


def kept(build: Callable[[], Transformer], *key: Any) -> Transformer:
    """Models that several examples of hypothesis share."""
    if key not in _kept:
        _kept[key] = build()
    return _kept[key]


def tokens_of(*shape: int, seed: int = 1) -> Tensor:
    return torch.randint(0, VOCABULARY, shape, generator=torch.Generator().manual_seed(seed))


def answer(model: Transformer, tokens: Tensor, **more: Any) -> Tensor:
    """Logits; an encoder-decoder reads one fixed source."""
    if model.config.form == "encoder-decoder":
        return model(tokens_of(tokens.shape[0], 7, seed=5), tokens, **more)
    return model(tokens, **more)


def segments_of(counts: Sequence[Sequence[int]]) -> Tensor:
    """(B,L) int64 of packed rows that hold examples of so many tokens each."""
    return torch.tensor([[n for n, count in enumerate(row) for _ in range(count)] for row in counts])


def assert_packed_as_alone(
    model: Transformer, tokens: Tensor, counts: Sequence[Sequence[int]], padding: str, room: int
) -> None:
    """Examples of so many tokens, packed in rows, have the states that each has alone.

    Args:
        padding: "none", or beside the rows "left" or "right", of `room` tokens.
    """
    segments, mask, start = segments_of(counts), None, 0
    if padding != "none":
        sides = (room, 0) if padding == "left" else (0, room)
        start = sides[0]
        mask = functional.pad(torch.ones_like(tokens, dtype=torch.bool), sides, value=False)
        tokens, segments = functional.pad(tokens, sides, value=7), functional.pad(segments, sides, value=0)
    packed = model.hidden(tokens, segments=segments, mask=mask)
    for row, lengths in enumerate(counts):
        at = start
        for length in lengths:
            alone = model.hidden(tokens[row : row + 1, at : at + length])[0]
            torch.testing.assert_close(packed[row, at : at + length], alone, atol=1e-11, rtol=0)
            at += length
