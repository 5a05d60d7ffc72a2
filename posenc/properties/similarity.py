"""How like two tokens of the same content score by their distance: what an encoding prefers, before any projection."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor

from posenc.api.encoding import Encoding
from posenc.attention.softmax.call import Call
from posenc.attention.softmax.reference import scores_of
from posenc.properties.anatomy import WEIGHTS_AT_ONCE, diagonals
from posenc.properties.layers import context_of


def why_not(encoding: Encoding) -> str | None:
    """Why there is none; None where there is."""
    if encoding.stack.axes > 1:
        return "not possible: similarity by distance, where a position has several coordinates"
    return encoding.why_not("softmax")


@torch.no_grad()
def similarity(encoding: Encoding, length: int) -> Tensor:
    """The mean score, over contents, of a query and a key that have the same content: (layers,H,N), in float64.

    The distances N are query less key, from 0 on, both ways from 1 - L on; each is the mean over the pairs of a row of
    L tokens that are so far apart.

    The content x of a head has mean 0 and E[x x'] = 1 exactly, as if drawn without end: plus and minus each unit
    vector times sqrt(K). So what is linear in content vanishes, and what is quadratic is its trace. Of scaled scores
    with K channels: `none` is sqrt(K) everywhere; a bias by distance adds its own line to that; RoPE is
    (2 / sqrt(K)) sum_i cos(n theta_i). What enters embeddings enters the content of every layer, as the residual
    stream carries it; queries and keys are the content itself, so parameters of an encoding are all that training
    changes here. Gates that read hidden states read the content.
    """
    whole = deepcopy(encoding).cpu().double()
    stack = whole.stack
    unit = torch.eye(stack.head_width, dtype=torch.float64) * stack.head_width**0.5
    contents = torch.cat((unit, -unit)).repeat(1, stack.heads)[:, None].expand(-1, length, -1)  # (2K,L,D)
    together = max(1, WEIGHTS_AT_ONCE // (stack.heads * length * length))
    found = []
    for layer in range(stack.layers):
        sums, pairs = torch.zeros(stack.heads, 2 * length - 1, dtype=torch.float64), torch.zeros(())
        for some in contents.split(together):
            scores, seen = _scores(whole, layer, some)
            sums = sums + diagonals(scores.masked_fill(~seen, 0.0).sum(0))
            pairs = pairs + diagonals(seen.double().expand(len(some), -1, -1, -1).sum((0, 1)))
        found.append((sums / pairs).masked_fill(pairs == 0, torch.nan))
    return torch.stack(found)[..., length - 1 if stack.causal else 0 :]


def _scores(whole: Encoding, layer: int, content: Tensor) -> tuple[Tensor, Tensor]:
    """Scores (B,H,L,L) of contents (B,L,D) as a layer has them, and which pairs are seen."""
    stack, encoding = whole.stack, whole.at(layer)
    context = context_of(whole, content.shape[1], layer, torch.Generator().manual_seed(0))
    context.window = encoding.window(layer)
    positions = context.query_positions
    context.hidden = whole.embed(content, positions, context)
    heads = context.hidden.unflatten(-1, (stack.heads, stack.head_width)).transpose(1, 2)
    call = Call(
        queries=encoding.rotate_query(heads, positions, context), keys=encoding.rotate_key(heads, positions, context),
        values=heads, scale=encoding.score_scale, causal=stack.causal, encoding=encoding, context=context,
        raw_queries=heads, raw_keys=heads,
    )  # fmt: skip
    return scores_of(call), context.visible
