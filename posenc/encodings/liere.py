"""LieRE: queries and keys turned by learnt rotations of many channels, matrix exponentials of a token's coordinates."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from posenc.api.autocast import without_autocast
from posenc.api.encoding import Context, Encoding
from posenc.api.stack import Stack
from posenc.api.starts import uniform_
from posenc.encodings.axial_rope import unturned


class BlockRotation(Encoding):
    """Base: blocks of b channels turned by exp(M), M (b,b) a skew matrix that follows from the coordinates.

    A stack of two axes or three is served. Matrices are exponentiated in float64: L x H x K x b numbers a layer, made
    once for queries and keys.
    """

    axes = 2
    keeps_norms = True
    linear_form = "inside"

    def __init__(self, stack: Stack, size: int, block: int) -> None:
        super().__init__(stack)
        if stack.axes > 2:
            self.axes = stack.axes
        if size < 0 or size == 1:
            raise ValueError(f"size={size}: must be at least 2 places along an axis, or 0 for those of training")
        if block < 2 or stack.head_width % block:
            raise ValueError(f"block={block} in heads of {stack.head_width}: must be a divisor of at least 2")
        self.size = size or max(2, math.floor(stack.max_length ** (1 / stack.axes) + 1e-9))
        self.block, self.blocks = block, stack.head_width // block

    def exponents(self, positions: Tensor, context: Context) -> Tensor:
        """M of each block at positions (B or 1, L, A): skew, float64 (B or 1, H, L, K/b, b, b)."""
        raise NotImplementedError

    def rotations(self, positions: Tensor, context: Context) -> Tensor:
        """exp(M), float64 (B or 1, H, L, K/b, b, b)."""
        return torch.linalg.matrix_exp(self.exponents(positions, context))

    def _rotate(self, x: Tensor, positions: Tensor, context: Context) -> Tensor:
        dtype = torch.promote_types(x.dtype, torch.float32)
        with without_autocast(x.device):
            if positions is not context.query_positions and positions is not context.key_positions:
                turned = self.rotations(positions, context).to(dtype)
            else:  # queries are the last of the keys: one table serves both
                key = ("rotations", context.layer, dtype)
                made = context.once(self, key, lambda: self.rotations(context.key_positions, context).to(dtype))
                turned = made[:, :, made.shape[2] - positions.shape[1] :]
            blocks = x.to(dtype).unflatten(-1, (self.blocks, self.block))
            if len(turned) == 1:  # one for all rows, which is not copied for each
                out = torch.einsum("hlnij,bhlnj->bhlni", turned[0], blocks)
            else:
                out = torch.einsum("bhlnij,bhlnj->bhlni", turned, blocks)
            return out.flatten(-2).to(x.dtype)

    def rotate_query(self, queries: Tensor, positions: Tensor, context: Context) -> Tensor:
        return self._rotate(queries, positions, context)

    def rotate_key(self, keys: Tensor, positions: Tensor, context: Context) -> Tensor:
        return self._rotate(keys, positions, context)


class Liere(BlockRotation):
    """R_p = exp(sum_a p_a A_a), A_a skew (b,b), learnt for each layer, head, axis and block of b channels.

    A_a = U_a - U_a^T, U_a above the diagonal; `upper` (layers, H, A, K/b, b(b-1)/2) holds it row by row, and starts
    uniform in (0, 2 pi) as the authors' does. Matrices of different axes do not commute, so scores depend on more than
    the distance. Coordinates are (row, column), or (time, row, column), counted from 0 in steps of a patch; p_a is the
    coordinate over size - 1, from 0 to 1 at the trained size. In the authors' code p_a of n places, where the trained
    size is s, runs to n / s: the same at the trained size, and else its steps differ from ours, which stay. CLS tokens
    stay unturned. Matrices are exponentiated in float64, the authors' in float32.

    Options:
        block: b, a divisor of the head's width; 0 for the whole head.
        size: how many places an axis has in training; 0 for those of the square (or cube) within the training length.
    """

    name = "liere"
    look = ("rotary", 19)
    title = "turns queries and keys by learnt rotations of many channels, which follow from the coordinates"
    paper = "Ostmeier et al. 2024, arXiv:2406.10322, section 4; the released code"
    formula = "(R_i q).(R_j k), R_p = exp(sum_a p_a A_a), A_a skew, learnt"

    def __init__(self, stack: Stack, *, block: int = 0, size: int = 0) -> None:
        super().__init__(stack, size, stack.head_width if block == 0 else block)
        above = self.block * (self.block - 1) // 2
        self.upper = nn.Parameter(torch.empty(stack.layers, stack.heads, stack.axes, self.blocks, above))

    def initialise(self, generator: torch.Generator) -> None:
        uniform_(self.upper, math.pi, generator)
        with torch.no_grad():
            self.upper.add_(math.pi)

    def generators(self, layer: int) -> Tensor:
        """A_a of a layer: float64 (H, A, K/b, b, b)."""
        upper = self.upper[layer].double()
        row, column = torch.triu_indices(self.block, self.block, 1, device=upper.device).unbind()
        matrices = upper.new_zeros(*upper.shape[:-1], self.block * self.block)
        matrices = matrices.index_copy(-1, row * self.block + column, upper).unflatten(-1, (self.block, self.block))
        return matrices - matrices.mT

    def exponents(self, positions: Tensor, context: Context) -> Tensor:
        at = positions.double()[:, None, :, :] / (self.size - 1)  # (B or 1, 1, L, A)
        if (left := unturned(context, positions.shape[1])) is not None:
            at = at.masked_fill(left, 0.0)
        along = self.generators(context.layer)[None, :, None].unbind(3)  # of each axis (1,H,1,K/b,b,b)
        terms = [at[..., axis, None, None, None] * generator for axis, generator in enumerate(along)]
        return torch.stack(terms).sum(dim=0)
