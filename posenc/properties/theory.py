"""What RoFormer's section 3 claims, measured of any encoding by its hooks alone, in float64. Needs torch alone.

Nothing is trained. Queries and keys are the embeddings themselves, cut into heads: no projection stands between an
encoding and what is measured of it. Learned parameters are as they start.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor

from posenc.api.encoding import Context, Encoding
from posenc.attention.softmax.biases import distance_table
from posenc.common.seeds import derive

FAR = 100_000
SHIFTS = (1, 37, 1000)
DISTANCES = 256
"""Figure 2 shows distances from 0 to about 250."""
SAMPLES = 64
LIMITS = {"relative_error": 1e-9, "norm_error": 1e-9, "sparse_error": 1e-9, "bound_decay": 0.5}
"""At most so much, and the claim holds."""


class Measured(NamedTuple):
    """A number, or why the question makes no sense of this encoding."""

    value: float | None
    why: str = ""


@dataclass
class Decay:
    """By distance: the paper's bound, and scores as they are. All are relative to distance 0.

    Attributes:
        distances: from 0 on. bound: (1 / (K/2)) sum_i |S_i| (equation 37), of rotations alone.
        same: the mean score of a token with itself at that distance. random: the root mean square of the scores of
            independent tokens, which the bound does not make decay: it bounds them by more than they reach.
    """

    distances: list[int] = field(default_factory=list)
    bound: list[float] | None = None
    same: list[float] = field(default_factory=list)
    random: list[float] = field(default_factory=list)


@torch.no_grad()
def scores(encoding: Encoding, embeddings: Tensor, positions: Tensor, queries: int) -> Tensor:
    """Attention scores (B,H,L,S), biases with them: of the last L of embeddings (B,S,D) at positions (S,)."""
    stack, keys = encoding.stack, len(positions)
    generator = torch.Generator().manual_seed(0)
    context = Context(stack=stack, queries=queries, keys=keys, device=positions.device, generator=generator)
    context.key_positions = positions[None, :, None]
    context.query_positions = context.key_positions[:, context.offset :]
    # As in one pass over the whole: what enters embeddings enters all of them.
    whole = replace(context, queries=keys)
    whole.key_positions = whole.query_positions = context.key_positions
    embedded = encoding.embed(embeddings, whole.query_positions, whole)
    heads = embedded.unflatten(-1, (stack.heads, stack.head_width)).transpose(1, 2)
    last = heads[:, :, context.offset :]
    turned = encoding.rotate_query(last, context.query_positions, context)
    rotated = encoding.rotate_key(heads, context.key_positions, whole)
    table = encoding.score_scale * turned @ rotated.transpose(-1, -2)
    if encoding.overrides("distance_bias"):
        table = table + distance_table(encoding, context)
    if encoding.overrides("score_bias"):
        table = table + encoding.score_bias(last, heads, context)
    return table


def _room(encoding: Encoding, wanted: int) -> int:
    return wanted if encoding.max_length is None else min(wanted, encoding.max_length)


def _embeddings(encoding: Encoding, seed: int, count: int, rows: int) -> Tensor:
    generator = torch.Generator().manual_seed(derive(seed, "theory"))
    return torch.randn(count, rows, encoding.stack.width, generator=generator, dtype=torch.float64)


def _set(encoding: Encoding) -> str:
    if encoding.stack.axes > 1:
        return "not measured: its questions are of positions on a line, and here a position has several coordinates"
    return "it sets positions itself" if encoding.overrides("positions") else ""


def _not_a_rotation(encoding: Encoding) -> str:
    if encoding.stack.axes > 1:
        return _set(encoding)
    turns = encoding.overrides("rotate_query") and encoding.keeps_norms
    return "" if turns else "it does not rotate queries and keys"


def relative_error(encoding: Encoding, seed: int) -> Measured:
    """By how much scores change, relative to the largest, when all positions shift (equations 13 to 16)."""
    if why := _set(encoding):
        return Measured(None, why)
    room = _room(encoding, 64 + max(SHIFTS))
    length = min(64, room // 2)
    x, worst = _embeddings(encoding, seed, 1, length), 0.0
    bare = scores(encoding, x, torch.arange(length), length)
    for shift in (shift for shift in SHIFTS if shift <= room - length):
        moved = scores(encoding, x, torch.arange(length) + shift, length)
        worst = max(worst, ((moved - bare).abs().max() / bare.abs().max()).item())
    return Measured(worst)


def _turned(encoding: Encoding, x: Tensor, positions: Tensor) -> Tensor:
    """What the hook on queries makes of x (1,H,L,K) at positions (L,)."""
    count = len(positions)
    context = Context(stack=encoding.stack, queries=count, keys=count, device=x.device)
    context.key_positions = context.query_positions = positions[None, :, None]
    return encoding.rotate_query(x, context.query_positions, context)


@torch.no_grad()
def norm_error(encoding: Encoding, seed: int) -> Measured:
    """By how much norms of queries change, relatively, at positions from 0 to 100,000: the matrix is orthogonal."""
    if encoding.stack.axes > 1:
        return Measured(None, _set(encoding))
    if not encoding.overrides("rotate_query"):
        return Measured(None, "it leaves queries and keys alone")
    positions = torch.arange(0, _room(encoding, FAR + 1), 50)
    x = _embeddings(encoding, seed, 1, len(positions)).unflatten(-1, (encoding.stack.heads, -1)).transpose(1, 2)
    turned = _turned(encoding, x, positions)
    return Measured((turned.norm(dim=-1) / x.norm(dim=-1) - 1).abs().max().item())


@torch.no_grad()
def angles(encoding: Encoding) -> Tensor:
    """(K/2,) by how much each pair of channels is turned from one position to the next, read off the hook itself."""
    width = encoding.stack.head_width
    basis = torch.zeros(1, encoding.stack.heads, 2, width, dtype=torch.float64)
    basis[..., 0::2] = 1.0  # the first channel of every pair
    at = _turned(encoding, basis, torch.arange(2))[0, 0, 1]
    return torch.atan2(at[1::2], at[0::2])


@torch.no_grad()
def sparse_error(encoding: Encoding, seed: int) -> Measured:
    """How far the hook's sparse product (equation 34) is from the whole matrix of equation (15) times the query.

    The matrix is block-diagonal, with the angles that the hook has from position 0 to 1 multiplied by the position.
    """
    if why := _not_a_rotation(encoding):
        return Measured(None, why)
    theta, worst = angles(encoding), 0.0
    x = _embeddings(encoding, seed, 1, 1).unflatten(-1, (encoding.stack.heads, -1)).transpose(1, 2)
    for position in (0, 1, 2, 100, 511):
        if position >= _room(encoding, 512):
            continue
        blocks = [
            torch.tensor([[angle.cos(), -angle.sin()], [angle.sin(), angle.cos()]], dtype=torch.float64)
            for angle in theta * position
        ]
        whole = torch.block_diag(*blocks)
        turned = _turned(encoding, x, torch.tensor([position]))
        worst = max(worst, (turned - x @ whole.T).abs().max().item())
    return Measured(worst)


def bound(theta: Tensor, distances: Tensor) -> Tensor:
    """(1 / (K/2)) sum_i |S_i| at each distance (N,), S_j = sum_{i<j} e^(i d theta_i) (equations 35 to 37, Figure 2)."""
    turns = torch.exp(1j * distances.double()[:, None] * theta)
    return turns.cumsum(dim=1).abs().mean(dim=1)


@torch.no_grad()
def decay(encoding: Encoding, seed: int) -> Decay | str:
    """Scores by the distance from a query to an earlier key; or why there are none."""
    if why := _set(encoding):
        return why
    count = _room(encoding, DISTANCES)
    positions = torch.arange(count)
    token = _embeddings(encoding, seed, SAMPLES, 1)

    def from_last(embeddings: Tensor) -> Tensor:
        return scores(encoding, embeddings, positions, queries=1)[:, :, 0].flip(-1)  # (B,H,distance)

    same = from_last(token.expand(-1, count, -1)).mean(dim=(0, 1))
    random = from_last(_embeddings(encoding, seed, SAMPLES, count + 1)[:, 1:])
    # At distance 0 a token stands beside itself: what independent ones have there is that of the next.
    apart = random.square().mean(dim=(0, 1)).sqrt()
    found = Decay(list(range(count)), None, (same / same[0]).tolist(), [1.0, *(apart[1:] / apart[1]).tolist()])
    if not _not_a_rotation(encoding):
        values = bound(angles(encoding), positions)
        found.bound = (values / values[0]).tolist()
    return found


def at_last(values: list[float]) -> float:
    """The mean over the last fifth of the distances."""
    fifth = max(1, len(values) // 5)
    return sum(values[-fifth:]) / fifth


def measure(encoding: Encoding, seed: int) -> tuple[dict[str, Measured], Decay | str]:
    """Every question's answer by its name, and the curves by distance, or why there are none.

    bound_decay: the bound at the last distances, relative to distance 0. same_decay: as that, of the mean score of a
    token with itself.
    """
    found = {question.__name__: question(encoding, seed) for question in (relative_error, norm_error, sparse_error)}
    curves = decay(encoding, seed)
    if isinstance(curves, str):
        return found | {"bound_decay": Measured(None, curves), "same_decay": Measured(None, curves)}, curves
    found["bound_decay"] = (
        Measured(None, _not_a_rotation(encoding)) if curves.bound is None else Measured(at_last(curves.bound))
    )
    found["same_decay"] = Measured(at_last(curves.same))
    return found, curves
