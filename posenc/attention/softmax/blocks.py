"""Softmax attention worked off in blocks of queries, with biases by distance that are never laid out as a table.

Weights are explicit within one block and gone after it; the backward pass makes them again, as flash attention does
(Dao et al. 2022). A causal block reads no key after its last query. So memory is
L x block, and of a bias by distance, or of Shaw's clipped ones, only what a block needs is ever there:

    line (H,N)           the bias of each signed distance, N = L + S - 1; a block's bias is a view of it along diagonals
    near (B,H,L,T)       what is added at T distances around each query, from 1 - clip on. Causal: T = clip, up to
                         distance 0. Both ways: T = 2 clip, the last one for every distance from `clip` on.
    sums (B,H,L,T)       attention weights summed over the same distances: a second output

Distances of -clip and less are left out of both: a constant added to all scores of a row changes no weight, and the
weights of a row sum to 1, so what they give follows from the rest. Shape suffixes as in posenc.api.encoding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from posenc.api.autocast import without_autocast
from posenc.attention.softmax.biases import distance_line, hidden_pairs
from posenc.attention.softmax.call import Call, Needs
from posenc.common.errors import NotPossibleError

VALUES = "its values need the weights"
ROWS = 64
"""Queries of a block."""


def why_not(needs: Needs) -> str | None:
    """Why it cannot; None where it can: biases by distance, and Shaw's form, have no number for each pair."""
    pairs = needs.overrides("score_bias") or needs.overrides("mix_values")
    if needs.explicit and not (needs.overrides("clipped_vectors") and needs.explicit == VALUES):
        return f"never shows attention weights, and {needs.explicit}"
    if pairs and not needs.overrides("clipped_vectors"):
        return "has no form of it: what it adds to scores is neither a bias by distance nor of Shaw's form"
    own = needs.coordinates or needs.overrides("positions")
    if (pairs or needs.overrides("distance_bias")) and (own or (needs.encoding and needs.encoding.stack.axes > 1)):
        return "has no form of it: its positions do not differ as the places of tokens do"
    return None


def attend(call: Call) -> Tensor:
    """Attention's output (B,H,L,K).

    Raises:
        NotPossibleError: a table of biases, where there is no encoding.
    """
    parts = (call.queries, call.keys, call.values)
    if call.encoding is None or call.context is None:
        return block_attention(*parts, scale=call.scale, causal=plain_triangle(call), seen=call.seen)[0]
    line, seen = distance_line(call.encoding, call.context), hidden_pairs(call.context)

    def attended(near: Tensor | None = None, clip: int = 0) -> tuple[Tensor, Tensor | None]:
        return block_attention(*parts, scale=call.scale, causal=call.causal, line=line, near=near, clip=clip, seen=seen)

    return in_shaws_form(call, attended)


def plain_triangle(call: Call) -> bool:
    """Whether causality is all that hides a key, where there is no encoding; no table of biases is taken."""
    if call.given is not None and call.given.dtype != torch.bool:
        raise NotPossibleError("not possible: this backend takes no table of biases")
    return call.causal and call.seen is None


def in_shaws_form(call: Call, attended: Callable[..., tuple[Tensor, Tensor | None]]) -> Tensor:
    """What `attended(near, clip)` gives, with the encoding's clipped vectors where it has some."""
    if call.encoding is None or call.context is None or not call.overrides("clipped_vectors"):
        return attended()[0]
    assert call.raw_queries is not None
    key_table, value_table = (table.to(call.values.dtype) for table in call.encoding.clipped_vectors(call.context))
    clip = key_table.shape[0] // 2
    # By difference from the vector of distance -clip: a causal query sees distances up to 0 alone.
    distances = slice(1, clip + 1) if call.causal else slice(1, None)
    near = call.raw_queries @ (key_table[distances] - key_table[:1]).T
    output, sums = attended(near, clip)
    assert sums is not None
    return output + sums @ (value_table[distances] - value_table[:1]) + value_table[0]


def block_attention(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    *,
    scale: float,
    causal: bool,
    line: Tensor | None = None,
    near: Tensor | None = None,
    clip: int = 0,
    seen: Tensor | None = None,
    rows: int = ROWS,
) -> tuple[Tensor, Tensor | None]:
    """Attention's output (B,H,L,K), and `sums` where `near` is given. Queries are the last L of the S keys.

    Computed in float32 at the least.

    Args:
        scale: what queries times keys is multiplied by.
        line, near: see above; both are added to the scaled scores. When causal, a line holds -inf for keys ahead.
        clip: of `near`.
        seen: (B or 1, 1, L, S) bool, False where a query may not look; None where all may, or causally all before it.
        rows: queries of a block.
    """
    dtype, wide = values.dtype, torch.promote_types(values.dtype, torch.float32)
    parts = [None if x is None else x.to(wide) for x in (queries.to(wide) * scale, keys, values, line, near)]
    with without_autocast(queries.device):
        out, sums = _Blocks.apply(*parts, seen, causal, clip, rows)
    return out.to(dtype), None if near is None else sums.to(dtype)


class _Block:
    """One block of queries: which they are, which keys they see, and how its scores are made."""

    def __init__(self, first: int, rows: int, length: int, keys: int, causal: bool, clip: int) -> None:
        self.first, self.last = first, min(first + rows, length)
        self.here = slice(self.first, self.last)
        self.rows, self.causal, self.clip = self.last - first, causal, clip
        self.at = first + keys - length  # the key at which the first query stands
        self.keys = self.at + self.rows if causal else keys
        self.line_start = length - self.last  # the line's index of the last query and key 0
        # Keys around the block's queries that stand nearer than `clip` to one of them.
        self.width = self.rows + (clip - 1 if causal else 2 * clip - 2)
        self.left = self.at - clip + 1
        self.near_first, self.near_last = max(self.left, 0), min(self.left + self.width, self.keys)

    def scores(self, q: Tensor, k: Tensor, line: Tensor | None, near: Tensor | None, seen: Tensor | None) -> Tensor:
        """(B,H,rows,keys), -inf where a query may not look."""
        scores = _product(q[:, :, self.here], k[:, :, : self.keys].transpose(-1, -2))
        if line is not None:
            part = line[:, self.line_start : self.line_start + self.rows + self.keys - 1]
            scores += part.unfold(1, self.keys, 1).flip(1)
        if near is not None:
            self.add_near(scores, near[:, :, self.here])
        if seen is not None:
            scores.masked_fill_(~seen[:, :, self.here, : self.keys], -torch.inf)
        elif self.causal and line is None:
            scores[..., self.at :] += scores.new_full((self.rows, self.rows), -torch.inf).triu(1)
        return scores

    def band(self, x: Tensor) -> Tensor:
        """Row r of x (B,H,rows,width), contiguous, from column r on: as wide as distances nearer than `clip` are."""
        b, h, r, _ = x.stride()
        return x.as_strided((*x.shape[:3], self.width - self.rows + 1), (b, h, r + 1, 1))

    def far_ahead(self, device: torch.device) -> Tensor:
        """(rows, width) bool: a key `clip` or more ahead, among those around the block."""
        return torch.ones(self.rows, self.width, dtype=torch.bool, device=device).triu(2 * self.clip - 1)

    def add_near(self, scores: Tensor, near: Tensor) -> None:
        """Add `near` (B,H,rows,T) to scores (B,H,rows,keys), each at its distance."""
        around = scores.new_zeros(*scores.shape[:3], self.width)
        self.band(around).copy_(near if self.causal else near[..., :-1])
        if not self.causal:
            around += self.far_ahead(scores.device) * near[..., -1:]
            scores[..., self.near_last :] += near[..., -1:]
        inside = slice(self.near_first - self.left, self.near_last - self.left)
        scores[..., self.near_first : self.near_last] += around[..., inside]

    def sums(self, x: Tensor) -> Tensor:
        """What stands in x (B,H,rows,keys) at each distance of `near`, (B,H,rows,T): the adjoint of `add_near`."""
        outside = (self.near_first - self.left, self.left + self.width - self.near_last)
        around = functional.pad(x[..., self.near_first : self.near_last], outside).contiguous()
        if self.causal:
            return self.band(around)
        ahead = (around * self.far_ahead(x.device)).sum(-1) + x[..., self.near_last :].sum(-1)
        return torch.cat((self.band(around), ahead[..., None]), dim=-1)

    def add_diagonals(self, line: Tensor, x: Tensor) -> None:
        """Add the sums of x (H,rows,keys) along its diagonals to the line: the adjoint of laying it out."""
        padded = functional.pad(x, (self.rows - 1, self.rows - 1))
        h, r, _ = padded.stride()
        diagonals = padded.as_strided((x.shape[0], self.rows, self.rows + self.keys - 1), (h, r + 1, 1))
        line[:, self.line_start : self.line_start + diagonals.shape[2]] += diagonals.sum(1)


def _product(x: Tensor, y: Tensor) -> Tensor:
    """x @ y for (B,H,any,any) whose first two axes lie one after the other: they are never copied."""
    return torch.bmm(x.flatten(0, 1), y.flatten(0, 1)).unflatten(0, x.shape[:2])


def _add_product(total: Tensor, x: Tensor, y: Tensor) -> None:
    """total += x @ y in place."""
    total.view(-1, *total.shape[2:]).baddbmm_(x.flatten(0, 1), y.flatten(0, 1))


def _blocks(rows: int, length: int, keys: int, causal: bool, clip: int) -> list[_Block]:
    return [_Block(first, rows, length, keys, causal, clip) for first in range(0, length, rows)]


class _Blocks(torch.autograd.Function):
    """Queries come scaled. Without `near` the second output is empty."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        line: Tensor | None,
        near: Tensor | None,
        seen: Tensor | None,
        causal: bool,
        clip: int,
        rows: int,
    ) -> tuple[Tensor, Tensor]:
        q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
        out = q.new_empty(*q.shape[:3], v.shape[3])
        sums = q.new_empty(0) if near is None else torch.empty_like(near)
        for block in _blocks(rows, q.shape[2], k.shape[2], causal, clip):
            weights = block.scores(q, k, line, near, seen).softmax(-1)
            out[:, :, block.here] = _product(weights, v[:, :, : block.keys])
            if near is not None:
                sums[:, :, block.here] = block.sums(weights)
        ctx.save_for_backward(q, k, v, line, near, seen, out, sums)
        ctx.settings = causal, clip, rows
        return out, sums

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, out_grad: Tensor, sums_grad: Tensor) -> Any:
        if torch.compiler.is_compiling():  # which keeps the forward pass's precision itself
            return _Blocks._backward(ctx, out_grad, sums_grad)
        # It may be asked for within autocast, which would narrow the products.
        with without_autocast(out_grad.device):
            return _Blocks._backward(ctx, out_grad, sums_grad)

    @staticmethod
    def _backward(ctx: Any, out_grad: Tensor, sums_grad: Tensor) -> Any:
        q, k, v, line, near, seen, out, sums = ctx.saved_tensors
        causal, clip, rows = ctx.settings
        out_grad = out_grad.contiguous()
        q_grad, k_grad, v_grad = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        line_grad = None if line is None else torch.zeros_like(line)
        near_grad = None if near is None else torch.empty_like(near)
        inner = (out_grad * out).sum(-1, keepdim=True)
        if near is not None:
            inner += (sums_grad * sums).sum(-1, keepdim=True)
        for block in _blocks(rows, q.shape[2], k.shape[2], causal, clip):
            here, seen_keys = block.here, slice(0, block.keys)
            weights = block.scores(q, k, line, near, seen).softmax(-1)
            _add_product(v_grad[:, :, seen_keys], weights.transpose(-1, -2), out_grad[:, :, here])
            changes = _product(out_grad[:, :, here], v[:, :, seen_keys].transpose(-1, -2))
            if near is not None:
                block.add_near(changes, sums_grad[:, :, here])
            changes.sub_(inner[:, :, here]).mul_(weights)
            q_grad[:, :, here] = _product(changes, k[:, :, seen_keys])
            _add_product(k_grad[:, :, seen_keys], changes.transpose(-1, -2), q[:, :, here])
            if line_grad is not None:
                block.add_diagonals(line_grad, changes.sum(0))
            if near_grad is not None:
                near_grad[:, :, here] = block.sums(changes)
        return q_grad, k_grad, v_grad, line_grad, near_grad, None, None, None, None
