"""What the heads of a model do with position: whom they attend to, how far, how sharply, and what an encoding adds.

Measured of any backbone with one stack, trained or not, causal or both ways, with softmax or linear attention, on the
tokens that it is given: the same views whatever the encoding. Needs torch alone. Sums are in float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from posenc.api.autocast import without_autocast
from posenc.api.encoding import Context, Encoding
from posenc.attention.linear.favor import Favor
from posenc.attention.softmax.kernel import Softmax
from posenc.attention.softmax.reference import scores_of
from posenc.backbone.layers import Attention, EncodedStack
from posenc.backbone.transformer import Transformer
from posenc.common.errors import ConfigError, NotPossibleError
from posenc.properties.subject import AFFORDABLE

MAP = 64
"""Tokens of a row whose attention is kept as a map."""
WEIGHTS_AT_ONCE = 2**24
"""Rows are taken together up to so many weights of a layer."""
NO_SCORES = "not possible: linear attention works out no scores of pairs"
NEGATIVE = "not possible: some of its implied weights are negative"


@dataclass
class Anatomy:
    """What was measured, by layer and head unless said otherwise.

    Attributes:
        distances: (N,) query less key, in tokens: from 0 on, both ways from 1 - L on.
        weight: (layers,H,N) the mean attention weight of the pairs at each distance.
        score: (layers,H,N) their mean score before the softmax, in nats; None where there are none.
        maps: (layers,H,M,M) the weights of the first MAP tokens of the first row, queries down.
        mean_distance: (layers,H) how many tokens away, either way, attention falls: the mean over queries.
        entropy: (layers,H) of a query's weights, in nats. evenness: the same over the logarithm of how many keys the
            query sees, where it sees two or more: 1 is uniform attention.
        first_token: (layers,H) the weight of the first token, the mean over all later queries.
        to_embeddings: the norm of what the encoding adds to the embeddings, over theirs (a number).
        to_scores: (layers,H) the root mean square, over pairs that are seen, of score less scale * q.k of queries and
            keys as projected, over that of the latter. Of biases it is what is added; of rotations what they change.
        to_values: (layers,H) the norm of what is added to a head's output, over the output's without it.
        why: by the name of what is None the reason.
    """

    distances: Tensor
    weight: Tensor
    score: Tensor | None
    maps: Tensor
    mean_distance: Tensor
    entropy: Tensor | None
    evenness: Tensor | None
    first_token: Tensor
    to_embeddings: float
    to_scores: Tensor | None
    to_values: Tensor
    why: dict[str, str] = field(default_factory=dict)


def diagonals(table: Tensor) -> Tensor:
    """(..., L, S) summed along its diagonals: (..., L + S - 1), query less key from 1 - S to L - 1.

    By a shear rather than by scattered sums, whose order differs from run to run on a GPU.
    """
    queries, keys = table.shape[-2:]
    sheared = functional.pad(table.flip(-1), (0, queries)).flatten(-2)[..., : queries * (queries + keys - 1)]
    return sheared.unflatten(-1, (queries, queries + keys - 1)).sum(-2)


@contextmanager
def steady(model: Transformer) -> Iterator[None]:
    """Within, the model is in evaluation mode; after, that and its encodings' generators stand as they stood before."""
    training, drawn = model.training, [part.generator for _, part in model.stacks]
    states = [None if one is None else one.get_state() for one in drawn]
    model.eval()
    try:
        yield
    finally:
        model.train(training)
        for one, state in zip(drawn, states, strict=True):
            if one is not None and state is not None:
                one.set_state(state)


def the_stack(model: Transformer, tokens: int) -> EncodedStack:
    """The one stack of a model that is to be measured on rows of so many tokens.

    Raises:
        NotPossibleError: it has two, or the rows are too long. ConfigError: they are too short.
    """
    if len(model.stacks) > 1:
        raise NotPossibleError("not possible: anatomy of an encoder-decoder: one of two stacks would be left out")
    if tokens > AFFORDABLE:
        raise NotPossibleError(
            f"not possible: the weights of all pairs of {tokens:,} tokens; {AFFORDABLE:,} are the most that can be paid"
        )
    if tokens < 2:
        raise ConfigError(f"anatomy: rows of {tokens} tokens: at least 2 must be given")
    return model.stacks[0][1]


@torch.no_grad()
def look(model: Transformer, tokens: Tensor) -> Anatomy:
    """The anatomy of a model on tokens (B,L).

    Raises:
        NotPossibleError: the encoding cannot answer for such a length, or as `the_stack` has it.
    """
    rows, length = tokens.shape
    stack = the_stack(model, length)
    together = max(1, WEIGHTS_AT_ONCE // (model.config.heads * length * length))
    sums = [_Sums() for _ in stack.layers]
    embedded = _Sums()
    for first in range(0, rows, together):
        some = tokens[first : first + together]
        with steady(model), _noting(model, stack, some, sums, embedded):
            model.hidden(some)
    return _means(sums, embedded, rows, length, stack.causal)


class _Sums(dict[str, Tensor]):
    """Sums by name, over rows and queries; `maps` are the first row's."""

    def add(self, name: str, value: Tensor) -> None:
        self[name] = self[name] + value if name in self else value


@contextmanager
def _noting(
    model: Transformer, stack: EncodedStack, tokens: Tensor, sums: list[_Sums], embedded: _Sums
) -> Iterator[None]:
    """Within, each layer's attention is measured as it has run."""
    handles = []
    for index, layer in enumerate(stack.layers):
        attention = layer.get_submodule("attention")

        def note(module: Any, given: Any, _: Any, index: int = index) -> None:
            x, encoding, context = given[:3]
            with without_autocast(x.device):
                if index == 0:
                    _embeddings(model.embed(tokens), stack.encoding, context, embedded)
                _attended(module, x, encoding, context, sums[index])

        handles.append(attention.register_forward_hook(note))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _embeddings(bare: Tensor, encoding: Encoding, context: Context, sums: _Sums) -> None:
    changed = encoding.embed(bare, context.query_positions, context)
    sums.add("added", (changed - bare).double().square().sum())
    sums.add("bare", bare.double().square().sum())


def _attended(attention: Attention, x: Tensor, encoding: Encoding, context: Context, sums: _Sums) -> None:
    """Add what one layer did with rows x (B,L,D) to its sums."""
    queries, keys, values = attention.projected(x, context)
    seen = context.visible.expand(len(x), -1, -1, -1)  # (B,1,L,S)
    if isinstance(attention.kernel, Softmax):
        call = attention.kernel.call(queries, keys, values, encoding, context)
        scores = scores_of(call)
        weights = scores.softmax(dim=-1)
        _scored(scores.masked_fill(~seen, 0.0), call.scale * queries @ keys.transpose(-1, -2), seen, sums)
    else:
        assert isinstance(attention.kernel, Favor)
        weights = attention.kernel.shares(queries, keys, encoding, context)
    _weighed(weights.double(), seen, sums)
    bare = (weights.to(values.dtype) @ values).double()
    sums.add("output", bare.square().sum((0, 2, 3)))
    mixed = torch.zeros_like(bare)
    if encoding.overrides("mix_values"):
        mixed = encoding.mix_values(weights.to(values.dtype), context).double().expand_as(bare)
    sums.add("mixed", mixed.square().sum((0, 2, 3)))


def _scored(scores: Tensor, content: Tensor, seen: Tensor, sums: _Sums) -> None:
    """Of scores (B,H,L,S), 0 where hidden, and of scale * q.k."""
    scores, content = scores.double(), content.double().masked_fill(~seen, 0.0)
    sums.add("scores", diagonals(scores.sum(0)))
    sums.add("change", (scores - content).square().sum((0, 2, 3)))
    sums.add("content", content.square().sum((0, 2, 3)))


def _weighed(weights: Tensor, seen: Tensor, sums: _Sums) -> None:
    """Of weights (B,H,L,S) in float64."""
    length = weights.shape[-1]
    index = torch.arange(length, device=weights.device)
    sums.add("away", (weights * (index[:, None] - index).abs()).sum((0, 2, 3)))
    sums.add("weights", diagonals(weights.sum(0)))
    sums.add("pairs", diagonals(seen.double().sum((0, 1))))
    sums.add("first", weights[:, :, 1:, 0].sum((0, 2)))
    sums.add("negative", (weights < 0).sum().double())
    entropy, visible = torch.special.entr(weights).sum(-1), seen.sum(-1)  # (B,H,L), (B,1,L)
    sums.add("entropy", entropy.sum((0, 2)))
    sums.add("evenness", (entropy / visible.double().log()).masked_fill(visible < 2, 0.0).sum((0, 2)))
    sums.add("choosing", (visible >= 2).double().sum())
    sums.setdefault("maps", weights[0, :, :MAP, :MAP])


def _means(layers: list[_Sums], embedded: _Sums, rows: int, length: int, causal: bool) -> Anatomy:
    def stacked(name: str) -> Tensor:
        return torch.stack([sums[name] for sums in layers]).cpu()

    def relative(added: str, bare: str) -> Tensor:
        return (stacked(added) / stacked(bare)).sqrt()

    from_here = length - 1 if causal else 0  # keys ahead are hidden from every query
    pairs, choosing = stacked("pairs")[:, None, from_here:], stacked("choosing")[:, None]
    why: dict[str, str] = {}
    scored = "scores" in layers[0]
    if not scored:
        why |= dict.fromkeys(("score", "to_scores"), NO_SCORES)
    odd = bool(stacked("negative").any())
    if odd:
        why |= dict.fromkeys(("entropy", "evenness"), NEGATIVE)
    queries = rows * length
    return Anatomy(
        distances=torch.arange(1 - length, length)[from_here:],
        weight=_over(stacked("weights")[..., from_here:], pairs),
        score=_over(stacked("scores")[..., from_here:], pairs) if scored else None,
        maps=stacked("maps"),
        mean_distance=stacked("away") / queries,
        entropy=None if odd else stacked("entropy") / queries,
        evenness=None if odd else stacked("evenness") / choosing,
        first_token=stacked("first") / (rows * (length - 1)),
        to_embeddings=(embedded["added"] / embedded["bare"]).sqrt().item(),
        to_scores=relative("change", "content") if scored else None,
        to_values=relative("mixed", "output"),
        why=why,
    )


def _over(sums: Tensor, pairs: Tensor) -> Tensor:
    """Means at distances that some pair has; not a number at those that a window hides."""
    return (sums / pairs).masked_fill(pairs == 0, torch.nan)
