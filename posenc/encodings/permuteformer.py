"""PermuteFormer: a Performer's features, permuted once more at each position (Chen 2021)."""

from __future__ import annotations

import torch
from torch import Tensor

from posenc.api.encoding import Context, Encoding
from posenc.api.stack import Stack

SEED = 0xDEADBEEF


class PermuteFormer(Encoding):
    """a_ij = r^n (P^i f(q_i)).(P^j f(k_j)): P permutes features, so the product depends on n = i - j alone.

    One permutation for each head, the same in all layers, drawn once for all from a fixed seed. r_h =
    sigmoid(2 + 3h / H), h from 0, as in the released code; both ways r^|n|, which the paper leaves out. The decay is
    carried from token to token: r^i and r^-j by themselves, as in the released code, overflow after some hundreds.
    """

    name = "permuteformer"
    look = ("rotary", 16)
    title = "permutes a Performer's features once more at each position, with a decay for each head"
    paper = "Chen 2021, arXiv:2109.02377, section 3; the released code"
    formula = "r_h^n (P^i f(q)).(P^j f(k)) in place of f(q).f(k)"
    relative = True
    linear_form = "moved"
    softmax_reason = "not possible: it permutes a Performer's features, and softmax attention has none"

    cycles: Tensor | None

    def __init__(self, stack: Stack) -> None:
        super().__init__(stack)
        self.register_buffer("cycles", None, persistent=False)

    def initialise(self, generator: torch.Generator) -> None:
        """It has no parameters."""

    def permutations(self, features: int) -> Tensor:
        """(H,M): feature m of a head after one step is the one that stood at place permutations[h, m]."""
        generator = torch.Generator().manual_seed(SEED)
        drawn = [torch.randperm(features, generator=generator, device="cpu") for _ in range(self.stack.heads)]
        return torch.stack(drawn)

    def expect_features(self, features: int) -> None:
        self.register_buffer("cycles", self._cycles(features), persistent=False)

    def _cycles(self, features: int) -> Tensor:
        """Of each P, (4,H,M): features in the order of its cycles; of each feature its cycle's start and size in that
        order, and its own place in the cycle.
        """
        cycles = torch.empty(4, self.stack.heads, features, dtype=torch.long, device="cpu")
        members, starts, sizes, places = cycles
        for head, permutation in enumerate(self.permutations(features).tolist()):
            order: list[int] = []
            for first in range(features):
                if first in order:
                    continue
                cycle = [first]
                while (following := permutation[cycle[-1]]) != first:
                    cycle.append(following)
                for place, member in enumerate(cycle):
                    starts[head, member], sizes[head, member], places[head, member] = len(order), len(cycle), place
                order += cycle
            members[head] = torch.tensor(order, device="cpu")
        # Where tensors are made: a plan counts on such without memory.
        return torch.empty(cycles.shape, dtype=cycles.dtype).copy_(cycles)

    def _sources(self, positions: Tensor, features: int) -> Tensor:
        """Where each feature comes from at positions (B or 1, L): (B or 1, H, L, M)."""
        own = self.cycles
        if own is None or own.shape[2] != features:  # asked outside a model
            own = self._cycles(features).to(positions.device)
        members, starts, sizes, places = own
        steps = (places[:, None] + positions[:, None, :, None]) % sizes[:, None] + starts[:, None]
        return members[:, None].expand(*steps.shape[:3], -1).gather(-1, steps)

    def _moved(self, x: Tensor, positions: Tensor, context: Context) -> Tensor:
        features = x.shape[-1]
        if positions is context.query_positions or positions is context.key_positions:
            sources = context.once(
                self, ("sources", features), lambda: self._sources(context.key_positions[..., 0], features)
            )
            sources = sources[:, :, sources.shape[2] - positions.shape[1] :]
        else:
            sources = self._sources(positions[..., 0], features)
        return x.gather(-1, sources.expand(*x.shape[:3], -1))

    def rotate_query(self, queries: Tensor, positions: Tensor, context: Context) -> Tensor:
        return self._moved(queries, positions, context)

    def rotate_key(self, keys: Tensor, positions: Tensor, context: Context) -> Tensor:
        return self._moved(keys, positions, context)

    def log_decay(self, context: Context) -> Tensor:
        heads = torch.arange(self.stack.heads, device=context.device, dtype=torch.float64) / self.stack.heads
        logs = torch.nn.functional.logsigmoid(2 + 3 * heads)
        return logs[None, :, None].expand(1, -1, context.keys)
