"""Encodings put together: `sinusoidal+rope`; and one as it serves a single layer, for posenc.encodings.layers."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Any

import torch
from torch import Tensor, nn

from posenc.api.encoding import Context, Encoding
from posenc.api.stack import Stack
from posenc.common.errors import NotPossibleError

ONE_OWNER = {
    "positions": "set positions",
    "score_scale": "set the score scale",
    "pair_scores": "have scores of their own in place of queries times keys",
    "change_scores": "change the scores",
}


class Several(Encoding):
    """What consists of other encodings. What it declares follows from theirs, so it belongs to the instance."""

    def __init__(self, stack: Stack, parts: Sequence[Encoding]) -> None:
        super().__init__(stack)
        self._parts = list(parts)
        axes = {part.axes for part in parts if part.axes is not None}
        if len(axes) > 1:
            raise NotPossibleError(f"not possible: the parts read {' and '.join(map(str, sorted(axes)))} coordinates")
        self._declare(
            directions=frozenset.intersection(*(part.directions for part in parts)),
            axes=axes.pop() if axes else None,
            relative=all(part.relative for part in parts),
            tells_order=any(part.tells_order for part in parts),
            keeps_norms=all(part.keeps_norms for part in parts),
            cached_decoding=all(part.cached_decoding for part in parts),
            softmax_reason=next((part.softmax_reason for part in parts if part.softmax_reason), None),
        )

    def _declare(self, **what: Any) -> None:
        for name, value in what.items():
            setattr(self, name, value)

    @property
    def max_length(self) -> int | None:
        limits = [part.max_length for part in self._parts if part.max_length is not None]
        return min(limits, default=None)

    def why_not(self, attention: str) -> str | None:
        own = (part.why_not(attention) for part in self._parts)
        return next((reason for reason in own if reason is not None), super().why_not(attention))

    def expect_features(self, features: int) -> None:
        for part in self._parts:
            part.expect_features(features)

    def why_not_features(self, features: int) -> str | None:
        own = (part.why_not_features(features) for part in self._parts)
        return next((reason for reason in own if reason is not None), None)

    def why_not_at(self, length: int) -> str | None:
        own = (part.why_not_at(length) for part in self._parts)
        return next((reason for reason in own if reason is not None), None)

    def initialise(self, generator: torch.Generator) -> None:
        for part in self._parts:
            part.initialise(generator)


class Composite(Several):
    """Two or more encodings at once, written `sinusoidal+rope`: every hook of each, in the order written.

    Embeddings and rotations pass through the parts one after another; biases and value terms add up. Of positions, of
    the score scale, and of each hook that gives scores of its own, at most one part may be the owner; windows narrow.
    """

    def __init__(self, stack: Stack, parts: Sequence[Encoding]) -> None:
        super().__init__(stack, parts)
        self.parts = nn.ModuleList(parts)
        for hook, does in ONE_OWNER.items():
            if sum(part.overrides(hook) for part in parts) > 1:
                raise NotPossibleError(f"not possible: two of the composed encodings {does}")
        scales = {part.score_scale for part in parts if part.overrides("score_scale")}
        self._scale = scales.pop() if scales else super().score_scale
        form, reason = self._linear()
        shared = all(part.shared for part in parts if part.overrides("distance_bias"))
        self._declare(linear_form=form, linear_reason=reason, shared=shared)
        # Of each layer, where parts differ by layer. In a list, so that no parameter is there twice.
        differ = any(part.at(0) is not part for part in parts)
        self._at = [type(self)(stack, [part.at(n) for part in parts]) for n in range(stack.layers)] if differ else []

    def _linear(self) -> tuple[str | None, str]:
        for part in self._parts:
            if part.linear_form is None:
                return None, part.linear_reason
        forms = [part.linear_form for part in self._parts if part.linear_form not in (None, "as_is")]
        if len(set(forms)) > 1:
            return None, f"not possible: its parts enter in several ways ({', '.join(sorted(set(map(str, forms))))})"
        if len(forms) > 1 and forms[0] in ("vectors", "relu"):
            return None, f"not built: several parts of the linear form {forms[0]}"
        return (forms[0] if forms else "as_is"), ""

    def at(self, layer: int) -> Encoding:
        return self._at[layer] if self._at else self

    def _own(self, context: Context) -> Context:
        """The context as the parts are to see it."""
        return context

    @property
    def score_scale(self) -> float:
        return self._scale

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
            embeddings = part.embed(embeddings, positions, self._own(context))
        return embeddings

    def rotate_query(self, queries: Tensor, positions: Tensor, context: Context) -> Tensor:
        for part in self._parts:
            queries = part.rotate_query(queries, positions, self._own(context))
        return queries

    def rotate_key(self, keys: Tensor, positions: Tensor, context: Context) -> Tensor:
        for part in self._parts:
            keys = part.rotate_key(keys, positions, self._own(context))
        return keys

    def _sum(self, hook: str, *arguments: Any, context: Context) -> Tensor:
        terms = [getattr(part, hook)(*arguments, self._own(context)) for part in self._parts if part.overrides(hook)]
        total: Tensor = sum(terms[1:], start=terms[0])
        return total

    def distance_bias(self, distances: Tensor, context: Context) -> Tensor:
        return self._sum("distance_bias", distances, context=context)

    def score_bias(self, queries: Tensor, keys: Tensor, context: Context) -> Tensor:
        return self._sum("score_bias", queries, keys, context=context)

    def pair_scores(self, queries: Tensor, keys: Tensor, context: Context) -> Tensor:
        return self._sum("pair_scores", queries, keys, context=context)

    def constant_from(self) -> int:
        return max(part.constant_from() for part in self._parts if part.overrides("constant_from"))

    def why_not(self, attention: str) -> str | None:
        own = self.stack.head_width
        wide = [part for part in self._parts if part.overrides("rotate_query") and part.linear_width != own]
        if len(wide) > 1:
            names = " and ".join(str(getattr(part, "name", type(part).__name__)) for part in wide)
            return f"not possible: {names} each make queries and keys of another width"
        return super().why_not(attention)

    @property
    def linear_width(self) -> int:
        return self.stack.head_width + sum(part.linear_width - self.stack.head_width for part in self._parts)

    def position_vectors(self, context: Context) -> tuple[Tensor, Tensor]:
        owners = (part for part in self._parts if part.overrides("position_vectors"))
        queries, keys = zip(*(part.position_vectors(self._own(context)) for part in owners), strict=True)
        return torch.cat(queries, dim=-1), torch.cat(keys, dim=-1)

    def feature_decay(self, features: int, context: Context) -> Tensor:
        return self._sum("feature_decay", features, context=context)

    def log_decay(self, context: Context) -> Tensor:
        return self._sum("log_decay", context=context)

    def change_scores(self, scores: Tensor, queries: Tensor, keys: Tensor, context: Context) -> Tensor:
        return self._sum("change_scores", scores, queries, keys, context=context)

    def mix_values(self, weights: Tensor, context: Context) -> Tensor:
        return self._sum("mix_values", weights, context=context)

    def clipped_vectors(self, context: Context) -> tuple[Tensor, Tensor]:
        return self._of_pairs()[0].clipped_vectors(self._own(context))

    def window(self, layer: int) -> int | None:
        narrowest = None
        for part in self._parts:  # in a plain loop, which torch.compile can read
            window = part.window(layer)
            if window is not None:
                narrowest = window if narrowest is None else min(window, narrowest)
        return narrowest


class AtLayer(Composite):
    """One part of `layers(...)` as it serves one layer, which it counts among its own."""

    def __init__(self, part: Encoding, layer: int, keys_back: int | None) -> None:
        super().__init__(part.stack, [part])
        self._layer, self._keys_back = layer, keys_back

    def _own(self, context: Context) -> Context:
        own = copy(context)  # a pass's `cache` is one and the same
        own.layer, own.stack = self._layer, self.stack
        return own

    def window(self, layer: int) -> int | None:
        own = super().window(self._layer)
        return own if self._keys_back is None else min(self._keys_back, own or self._keys_back)
