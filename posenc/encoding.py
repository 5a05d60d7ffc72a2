"""The interface of a positional encoding: the hooks by which position enters a model, and what it declares.

Shape suffixes, here and in every encoding: B batch, H heads, L queries, S keys, D model width, K head
width, A axes of a position (1 for text), N a number of distances.

An encoding overrides only the hooks it needs:

    hook                         gets                                  returns
    positions                    context                               (B or 1, S, A)
    embed                        embeddings (B,L,D), positions         (B,L,D)
    rotate_query, rotate_key     (B,H,L,any), positions                the same shape, or wider
    distance_bias                signed distances key - query (N,)     (H,N), added to the scaled scores
    score_bias                   queries (B,H,L,K), keys (B,H,S,K)     (B or 1,H,L,S), added to the scaled scores
    mix_values                   attention weights (B,H,L,S)           (B,H,L,K), added to the output
    clipped_vectors              context                               the two hooks above in Shaw's form, for speed

`encodings/README.md` says which hook each encoding of the literature uses. This module needs torch alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from posenc.errors import NotPossibleError

LinearForm = Literal["as_is", "inside", "outside"]


@dataclass(frozen=True, kw_only=True)
class Stack:
    """The stack of layers that one encoding instance serves.

    Attributes:
        layers, heads: how many.
        width: D, the model's width.
        head_width: K, the width of one head.
        max_length: the largest length trained on, in tokens (the size of a learned table).
        causal: a query sees only keys at or before it; else both ways.
    """

    layers: int
    heads: int
    width: int
    head_width: int
    max_length: int
    causal: bool


@dataclass(kw_only=True)
class Context:
    """What every hook may know of the forward pass it serves.

    Keys count S, queries L; in cached decoding the L queries are the last of the S keys (`offset` = S - L).

    Attributes:
        stack: the stack served.
        layer: the layer that asks, counted from 0 (set by the stack as it goes).
        mask: (B,S) bool, True at real tokens; None where every token is real.
        segments: (B,S) int, which packed example a token belongs to; None where rows hold one example.
        cls: (B,S) bool, True at classification tokens; None where there are none.
        training: the model is in training mode.
        generator: the encoding's own source of randomness; the global one is never drawn from, so that
            dropout masks do not depend on the encoding.
        cache: lives for one forward pass of one stack: a table is made once, not once a layer.
        key_positions, query_positions: (B or 1, S or L, A), what `Encoding.positions` answered.
    """

    stack: Stack
    queries: int
    keys: int
    device: torch.device
    layer: int = 0
    mask: Tensor | None = None
    segments: Tensor | None = None
    cls: Tensor | None = None
    training: bool = False
    generator: torch.Generator | None = None
    cache: dict[Any, Any] = field(default_factory=dict)
    key_positions: Tensor = field(init=False)
    query_positions: Tensor = field(init=False)

    @property
    def offset(self) -> int:
        return self.keys - self.queries

    @property
    def lengths(self) -> Tensor:
        """(B or 1,) how many real tokens each row holds."""
        if self.mask is None:
            return torch.full((1,), self.keys, device=self.device)
        return self.mask.sum(dim=1)


class Encoding(nn.Module):
    """A positional encoding, serving one stack. Subclass it, override hooks, declare what is true.

    Options are the keyword-only parameters of `__init__` after `stack`, with defaults and annotations:
    `rope(base=500000)` passes `base`. `posenc check NAME` holds the declarations below against measurements.
    """

    title: ClassVar[str] = ""
    paper: ClassVar[str] = ""
    version: ClassVar[str] = "1"
    """Part of each cell's id: raise it when the numbers that the encoding gives change."""

    directions: ClassVar[frozenset[str]] = frozenset({"causal", "bidirectional"})
    relative: ClassVar[bool] = False
    """Attention depends on distances alone: shifting all positions changes nothing."""
    tells_order: ClassVar[bool] = True
    """A bidirectional model can tell the order of its tokens."""
    keeps_norms: ClassVar[bool] = False
    """Rotations: the hooks on queries and keys leave their norms as they were."""
    cached_decoding: ClassVar[bool] = True
    """Decoding token by token with cached keys gives what one pass over the whole gives."""
    cross_attention: ClassVar[bool] = False
    """Enters cross-attention too. None of the built-in ones does."""

    linear_form: ClassVar[LinearForm | None] = None
    """How it enters linear attention; None where it does not, and `linear_reason` says why."""
    linear_reason: ClassVar[str] = "not built: its form in linear attention is not written"
    softmax_reason: ClassVar[str | None] = None
    """Why softmax attention cannot take it; None where it can."""

    def __init__(self, stack: Stack) -> None:
        super().__init__()
        self.stack = stack

    # What depends on the stack or the options

    @property
    def max_length(self) -> int | None:
        """The largest length it can answer for, in tokens; None where there is no limit."""
        return None

    @property
    def score_scale(self) -> float:
        """What queries times keys is multiplied by before the softmax."""
        return self.stack.head_width**-0.5

    def why_not(self, attention: str) -> str | None:
        """Why it cannot serve this stack with `attention` ("softmax" or "performer"); None where it can."""
        direction = "causal" if self.stack.causal else "bidirectional"
        if direction not in self.directions:
            return f"not possible: defined for {' and '.join(sorted(self.directions))} attention only"
        if attention == "softmax":
            return self.softmax_reason
        return None if self.linear_form else self.linear_reason

    def why_not_features(self, features: int) -> str | None:
        """Why it cannot enter on so many features (the form "outside"); None where it can."""
        return None

    def why_not_at(self, length: int) -> str | None:
        """Why it has no answer at this length in tokens; None where it has one."""
        if self.max_length is not None and length > self.max_length:
            return f"not possible: it has {self.max_length} positions, and {length} were asked for"
        return None

    def initialise(self, generator: torch.Generator) -> None:
        """Draw its parameters, if it has any, from `generator` (never from the global one)."""
        if next(self.parameters(), None) is not None:
            raise NotImplementedError(f"{type(self).__name__} has parameters and must say how they start")

    # Hooks

    def positions(self, context: Context) -> Tensor:
        """Positions of the S keys, (B or 1, S, 1): counted from 0 in each row and each packed segment.

        Padding may stand left or right: positions count real tokens from the first one of the row, or of
        the segment. What stands at padding is never looked at.
        """
        index = torch.arange(context.keys, device=context.device)
        if context.mask is None and context.segments is None:
            return index[None, :, None]
        start = torch.zeros_like(index)[None]
        if context.mask is not None:
            start = context.mask.int().argmax(dim=1, keepdim=True)
        if context.segments is not None:
            fresh = torch.ones_like(context.segments, dtype=torch.bool)
            fresh[:, 1:] = context.segments[:, 1:] != context.segments[:, :-1]
            start = torch.maximum(start, torch.where(fresh, index, 0).cummax(dim=1).values)
        return (index - start).clamp_min(0)[..., None]

    def embed(self, embeddings: Tensor, positions: Tensor, context: Context) -> Tensor:
        """Let position enter the token embeddings (B,L,D), once, before the first layer."""
        return embeddings

    def rotate_query(self, queries: Tensor, positions: Tensor, context: Context) -> Tensor:
        """Let position enter queries (B,H,L,any): heads, or a Performer's features."""
        return queries

    def rotate_key(self, keys: Tensor, positions: Tensor, context: Context) -> Tensor:
        """Let position enter keys (B,H,S,any)."""
        return keys

    def distance_bias(self, distances: Tensor, context: Context) -> Tensor:
        """A bias (H,N) for N signed distances key - query, added to the scaled scores."""
        raise NotImplementedError

    def score_bias(self, queries: Tensor, keys: Tensor, context: Context) -> Tensor:
        """A bias (B or 1, H, L, S) added to the scaled scores; any scale of its own is the encoding's part.

        Queries (B,H,L,K) and keys (B,H,S,K) come as projected, before any rotation.
        """
        raise NotImplementedError

    def mix_values(self, weights: Tensor, context: Context) -> Tensor:
        """Something (B,H,L,K) added to the attention's output, from its weights (B,H,L,S)."""
        raise NotImplementedError

    def clipped_vectors(self, context: Context) -> tuple[Tensor, Tensor]:
        """Two tables (2 clip + 1, K) of this layer, for keys and values, by distance from -clip to clip.

        Where an encoding's `score_bias` is queries @ table[clip(key - query)], any scale included, and its `mix_values`
        weights @ table[clip(key - query)], these tables let attention do the same without a number for each pair.
        Both hooks must be there too: they are the plain form, and serve where positions are not the default ones.
        """
        raise NotImplementedError

    def overrides(self, hook: str) -> bool:
        """Whether this encoding has a form of its own of a hook."""
        return getattr(type(self), hook) is not getattr(Encoding, hook)

    def require_length(self, length: int) -> None:
        """Raise NotPossibleError where `why_not_at` has a reason: the last guard before a wrong answer."""
        if (reason := self.why_not_at(length)) is not None:
            raise NotPossibleError(reason)


def prepare(encoding: Encoding, context: Context) -> Context:
    """Fill a context's positions: asked once a forward pass, refused beyond the encoding's length.

    Raises:
        NotPossibleError: the encoding has no answer at this length.
    """
    encoding.require_length(context.keys)
    context.key_positions = encoding.positions(context)
    context.query_positions = context.key_positions[:, context.offset :]
    return context


class Composite(Encoding):
    """Two or more encodings at once, written `sinusoidal+rope`: every hook of each, in the order written.

    Embeddings and rotations pass through the parts one after another; biases and value terms add up. At
    most one part may set positions, and at most one a score scale of its own.
    """

    def __init__(self, stack: Stack, parts: Sequence[Encoding]) -> None:
        super().__init__(stack)
        self.parts = nn.ModuleList(parts)
        self._parts = list(parts)
        setters = [part for part in parts if part.overrides("positions")]
        if len(setters) > 1:
            raise NotPossibleError("not possible: two of the composed encodings set positions")
        scales = {part.score_scale for part in parts if part.overrides("score_scale")}
        if len(scales) > 1:
            raise NotPossibleError("not possible: two of the composed encodings set the score scale")
        self._scale = scales.pop() if scales else super().score_scale
        # Declarations of the whole follow from the parts', so they belong to the instance here.
        every: dict[str, Any] = {
            "directions": frozenset.intersection(*(part.directions for part in parts)),
            "relative": all(part.relative for part in parts),
            "tells_order": any(part.tells_order for part in parts),
            "keeps_norms": all(part.keeps_norms for part in parts),
            "cached_decoding": all(part.cached_decoding for part in parts),
            "cross_attention": any(part.cross_attention for part in parts),
            "softmax_reason": next((part.softmax_reason for part in parts if part.softmax_reason), None),
        }
        every["linear_form"], every["linear_reason"] = self._linear()
        for name, value in every.items():
            setattr(self, name, value)

    def _linear(self) -> tuple[LinearForm | None, str]:
        for part in self._parts:
            if part.linear_form is None:
                return None, part.linear_reason
        forms = [part.linear_form for part in self._parts if part.linear_form != "as_is"]
        if len(set(forms)) > 1:
            return None, "not possible: one part rotates inside the features, another outside"
        return (forms[0] if forms else "as_is"), ""

    @property
    def max_length(self) -> int | None:
        limits = [part.max_length for part in self._parts if part.max_length is not None]
        return min(limits) if limits else None

    @property
    def score_scale(self) -> float:
        return self._scale

    def why_not(self, attention: str) -> str | None:
        own = (part.why_not(attention) for part in self._parts)
        return next((reason for reason in own if reason is not None), super().why_not(attention))

    def why_not_features(self, features: int) -> str | None:
        own = (part.why_not_features(features) for part in self._parts)
        return next((reason for reason in own if reason is not None), None)

    def why_not_at(self, length: int) -> str | None:
        own = (part.why_not_at(length) for part in self._parts)
        return next((reason for reason in own if reason is not None), None)

    def initialise(self, generator: torch.Generator) -> None:
        for part in self._parts:
            part.initialise(generator)

    def overrides(self, hook: str) -> bool:
        if hook == "clipped_vectors":  # it stands for all that the parts do to scores and values
            return len(self._of_pairs()) == 1 and self._of_pairs()[0].overrides(hook)
        return any(part.overrides(hook) for part in self._parts)

    def _of_pairs(self) -> list[Encoding]:
        return [part for part in self._parts if part.overrides("score_bias") or part.overrides("mix_values")]

    def positions(self, context: Context) -> Tensor:
        setter = next((part for part in self._parts if part.overrides("positions")), None)
        return setter.positions(context) if setter else super().positions(context)

    def embed(self, embeddings: Tensor, positions: Tensor, context: Context) -> Tensor:
        for part in self._parts:
            embeddings = part.embed(embeddings, positions, context)
        return embeddings

    def rotate_query(self, queries: Tensor, positions: Tensor, context: Context) -> Tensor:
        for part in self._parts:
            queries = part.rotate_query(queries, positions, context)
        return queries

    def rotate_key(self, keys: Tensor, positions: Tensor, context: Context) -> Tensor:
        for part in self._parts:
            keys = part.rotate_key(keys, positions, context)
        return keys

    def _sum(self, hook: str, *arguments: Any) -> Tensor:
        terms = [getattr(part, hook)(*arguments) for part in self._parts if part.overrides(hook)]
        total: Tensor = sum(terms[1:], start=terms[0])
        return total

    def distance_bias(self, distances: Tensor, context: Context) -> Tensor:
        return self._sum("distance_bias", distances, context)

    def score_bias(self, queries: Tensor, keys: Tensor, context: Context) -> Tensor:
        return self._sum("score_bias", queries, keys, context)

    def mix_values(self, weights: Tensor, context: Context) -> Tensor:
        return self._sum("mix_values", weights, context)

    def clipped_vectors(self, context: Context) -> tuple[Tensor, Tensor]:
        return self._of_pairs()[0].clipped_vectors(context)


def normal_(tensor: Tensor, std: float, generator: torch.Generator) -> None:
    """Fill a parameter from N(0, std^2) in place, drawn in float32 on the CPU whatever its device and dtype.

    So the same seed gives the same start on every device.
    """
    with torch.no_grad():
        tensor.copy_(torch.randn(tensor.shape, generator=generator, dtype=torch.float32) * std)


def uniform_(tensor: Tensor, bound: float, generator: torch.Generator) -> None:
    """Fill a parameter from U(-bound, bound) in place, drawn as `normal_` draws."""
    with torch.no_grad():
        tensor.copy_((torch.rand(tensor.shape, generator=generator, dtype=torch.float32) * 2 - 1) * bound)


def xavier_uniform_(tensor: Tensor, generator: torch.Generator) -> None:
    """Glorot and Bengio's uniform start for a matrix (outputs, inputs)."""
    uniform_(tensor, math.sqrt(6.0 / (tensor.shape[0] + tensor.shape[1])), generator)
