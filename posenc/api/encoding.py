"""The interface of a positional encoding: the hooks by which position enters a model, and what it declares.

Shape suffixes, here and in every encoding: B batch, H heads, L queries, S keys, D model width, K head
width, A axes of a position (1 for text), N a number of distances.

An encoding overrides only the hooks it needs:

    hook                         gets                                  returns
    positions                    context                               (B or 1, S, A)
    embed                        embeddings (B,L,D), positions         (B,L,D)
    rotate_query, rotate_key     (B,H,L,any), positions                the same shape, or wider
    pair_scores                  queries (B,H,L,any), keys, rotated    (B,H,L,S), in place of queries times keys
    distance_bias                signed distances key - query          (H,N), added to the scaled scores
                                 (N,), or (N,A) of several axes
    score_bias                   queries (B,H,L,K), keys (B,H,S,K)     (B or 1,H,L,S), added to the scaled scores
    change_scores                scores (B,H,L,S) with all biases,     (B,H,L,S)
                                 queries, keys
    mix_values                   attention weights (B,H,L,S)           (B,H,L,K), added to the output
    clipped_vectors              context                               the two of Shaw's form, without L x S numbers
    window                       layer                                 how many keys back a query of this layer sees
    log_decay                    context                               (B or 1,H,S), of linear attention alone
    constant_from                                                      a distance, of linear attention alone
    position_vectors             context                               two (B or 1,H,L,E), of linear attention alone
    feature_decay                how many features, context            (M,), of linear attention alone

`encodings/README.md` says which hook each encoding of the literature uses. This module needs torch alone.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from posenc.api.context import Context
from posenc.api.stack import Stack
from posenc.common.errors import NotPossibleError

__all__ = ["HOOKS", "Context", "Encoding", "prepare"]

HOOKS = (
    "positions", "embed", "rotate_query", "rotate_key", "distance_bias", "score_bias", "pair_scores", "change_scores",
    "mix_values",
)  # fmt: skip
"""By which position may enter, in the order in which a layer asks them."""


class Encoding(nn.Module):
    """A positional encoding, serving one stack. Subclass it, override hooks, declare what is true.

    Options are the keyword-only parameters of `__init__` after `stack`, with defaults and annotations:
    `rope(base=500000)` passes `base`. `posenc check NAME` holds the declarations below against measurements.
    """

    title: ClassVar[str] = ""
    paper: ClassVar[str] = ""
    formula: ClassVar[str] = ""
    """What it adds or changes, in a line; s is the scaled score of query i and key j, n = i - j."""
    version: ClassVar[str] = "1"
    """Part of each cell's id: raise it when the numbers that the encoding gives change."""

    directions: ClassVar[frozenset[str]] = frozenset({"causal", "bidirectional"})
    axes: int | None = 1
    """How many coordinates of a position it reads; None where it reads none, or any number. A mismatch is refused."""
    shared: ClassVar[bool] = False
    """Its `distance_bias` is the same in every layer, so it is asked for once a pass."""
    relative: ClassVar[bool] = False
    """Attention depends on distances alone: shifting all positions changes nothing."""
    tells_order: ClassVar[bool] = True
    """A bidirectional model can tell the order of its tokens."""
    keeps_norms: ClassVar[bool] = False
    """Rotations: the hooks on queries and keys leave their norms as they were."""
    cached_decoding: ClassVar[bool] = True
    """Decoding token by token with cached keys gives what one pass over the whole gives."""

    linear_form: ClassVar[str | None] = None
    """How it enters linear attention, a name of posenc.attention.linear.kernel.FORMS; None where it does not, and
    `linear_reason` says why."""
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
        """What queries times keys is multiplied by before the softmax; one of its own builds on `stack.scale()`."""
        return self.stack.scale()

    @property
    def linear_width(self) -> int:
        """How many channels queries have where features are drawn of them: a head's, or more of the form "wider"."""
        return self.stack.head_width

    def why_not(self, attention: str) -> str | None:
        """Why it cannot serve this stack with `attention` ("softmax" or "performer"); None where it can."""
        direction = "causal" if self.stack.causal else "bidirectional"
        if direction not in self.directions:
            return f"not possible: defined for {' and '.join(sorted(self.directions))} attention only"
        if self.axes is not None and self.axes != self.stack.axes and not self.overrides("positions"):
            return _axes_differ(self.axes, self.stack.axes)
        if attention == "softmax":
            return self.softmax_reason
        return None if self.linear_form else self.linear_reason

    def why_not_features(self, features: int) -> str | None:
        """Why it cannot enter a Performer of so many features; None where it can."""
        return None

    def expect_features(self, features: int) -> None:
        """Told of a Performer, before its first pass: what is made of that number alone is made here, once."""

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
        """Positions of the S keys, (B or 1, S, A): counted from 0 in each row and each packed segment (then A is 1).

        Padding may stand left or right: positions count real tokens from the first one of the row, or of
        the segment. What stands at padding is never looked at. Where the batch has coordinates, they are the positions.
        """
        if context.coordinates is not None:
            return context.coordinates
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
        """A bias (H,N) for N signed distances key - query, (N,) or with several axes (N,A), added to the scaled scores.

        Asked for in each layer (`context.layer`), or once where the encoding declares `shared`.
        """
        raise NotImplementedError

    def score_bias(self, queries: Tensor, keys: Tensor, context: Context) -> Tensor:
        """A bias (B or 1, H, L, S) added to the scaled scores; any scale of its own is the encoding's part.

        Queries (B,H,L,K) and keys (B,H,S,K) come as projected, before any rotation.
        """
        raise NotImplementedError

    def pair_scores(self, queries: Tensor, keys: Tensor, context: Context) -> Tensor:
        """What stands in place of queries times keys, (B,H,L,S): it is scaled, and biases are added, as to those.

        Queries (B,H,L,any) and keys (B,H,S,any) come as the rotations left them.
        """
        raise NotImplementedError

    def change_scores(self, scores: Tensor, queries: Tensor, keys: Tensor, context: Context) -> Tensor:
        """Scaled scores with all biases (B,H,L,S), before anything is hidden, to what the softmax is taken of.

        Queries (B,H,L,K) and keys (B,H,S,K) come as projected. Scores of pairs that `context.visible` (B or 1, 1, L, S)
        hides are there too: what they are may reach no other pair.
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

    def window(self, layer: int) -> int | None:
        """How many keys back a query of this layer sees, itself among them (both ways: as many ahead); None for all."""
        return None

    def log_decay(self, context: Context) -> Tensor:
        """The log (B or 1, H, S), at most 0, of the factor at each token by which all before it is multiplied.

        In linear attention of the form "decay" a pair's weight is f(q_i).f(k_j) exp of the sum over j < l <= i.
        """
        raise NotImplementedError

    def constant_from(self) -> int:
        """The distance from which on, on either side, its `distance_bias` is constant: of the linear form "band"."""
        raise NotImplementedError

    def position_vectors(self, context: Context) -> tuple[Tensor, Tensor]:
        """What stands beside queries (B or 1, H or 1, L, E) and beside keys (B or 1, H or 1, S, E).

        In linear attention of the form "wider" the two, multiplied, are what position adds to the scaled scores. Of the
        form "relu" they are what the product of queries and keys is multiplied by.
        """
        raise NotImplementedError

    def feature_decay(self, features: int, context: Context) -> Tensor:
        """The log (M,), at most 0, of the factor at each token by which each of M features decays.

        In causal linear attention of the form "outside", in the numerator alone.
        """
        raise NotImplementedError

    # What attention and others ask of it

    def at(self, layer: int) -> Encoding:
        """The encoding that serves one layer: itself, but where layers differ (`layers(rope, none)`)."""
        return self

    def overrides(self, hook: str) -> bool:
        """Whether this encoding has a form of its own of a hook."""
        return getattr(type(self), hook) is not getattr(Encoding, hook)

    def require_length(self, length: int) -> None:
        """Raise NotPossibleError where `why_not_at` has a reason: the last guard before a wrong answer."""
        if (reason := self.why_not_at(length)) is not None:
            raise NotPossibleError(reason)


def _axes_differ(reads: int, there: int) -> str:
    return f"not possible: it reads {reads} coordinate{'s'[: reads > 1]} of a position, and positions here have {there}"


def prepare(encoding: Encoding, context: Context) -> Context:
    """Fill a context's positions: asked once a forward pass, refused beyond the encoding's length.

    Raises:
        NotPossibleError: the encoding has no answer at this length, or reads more or fewer coordinates.
    """
    encoding.require_length(context.keys)
    context.key_positions = encoding.positions(context)
    if encoding.axes not in (None, context.key_positions.shape[-1]):
        raise NotPossibleError(_axes_differ(encoding.axes or 0, context.key_positions.shape[-1]))
    context.query_positions = context.key_positions[:, context.offset :]
    context.counted = context.coordinates is None and not encoding.overrides("positions")
    return context
