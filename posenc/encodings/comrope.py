"""ComRoPE: learnt rotations of many channels whose matrices commute, so that scores depend on distances alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from posenc.api.encoding import Context
from posenc.api.stack import Stack
from posenc.api.starts import normal_
from posenc.encodings.liere import BlockRotation


class _Commuting(BlockRotation):
    """Blocks that are each turned by exp(t (F - F^T)), F (b,b) learnt, t a number that follows from the coordinates."""

    relative = True

    def __init__(self, stack: Stack, *, block: int = 4, size: int = 0) -> None:
        super().__init__(stack, size, block)
        self.matrices = nn.Parameter(torch.empty(stack.layers, stack.heads, self.blocks, block, block))

    def initialise(self, generator: torch.Generator) -> None:
        normal_(self.matrices, 1.0, generator)

    def along(self, at: Tensor, layer: int) -> Tensor:
        """t of each block at scaled coordinates (B or 1, L, A): float64 (B or 1, L, K/b)."""
        raise NotImplementedError

    def exponents(self, positions: Tensor, context: Context) -> Tensor:
        at = (positions.double() + 0.5) / self.size
        if context.cls is not None:  # in the middle
            at = torch.where(context.cls[:, -positions.shape[1] :, None], 0.5, at)
        matrices = self.matrices[context.layer].double()
        skew = (matrices - matrices.mT)[None, :, None]  # (1,H,1,K/b,b,b)
        return self.along(at, context.layer)[:, None, ..., None, None] * skew


class ComropeAp(_Commuting):
    """ComRoPE-AP: block j is turned by exp(p_a (F_j - F_j^T)) along one axis alone, a = j mod A ("axial partition").

    F (b,b) is learnt for each layer, head and block of b channels, and starts from N(0, 1). Coordinates are (row,
    column), or (time, row, column), counted from 0 in steps of a patch; p_a = (coordinate + 1/2) / size. CLS tokens
    stand in the middle, 1/2 on each axis, and are turned as others, as in the authors' code. That code can also move
    coordinates at random in training ("perturbation"), which is not built.

    Options:
        block: b; the head must hold a multiple of A of them. The code's default is 2, with which every block is a pair
            as in RoPE.
        size: how many places an axis has in training; 0 for those of the square (or cube) within the training length.
    """

    name = "comrope_ap"
    look = ("rotary", 20)
    title = "learnt rotations of many channels, each along one axis"
    paper = "Yu et al. 2025, arXiv:2506.03737, section 4; the released code"
    formula = "(R_i q).(R_j k), R_p turns block j by exp(p_(j mod A) (F_j - F_j^T)), F learnt"

    def __init__(self, stack: Stack, *, block: int = 4, size: int = 0) -> None:
        super().__init__(stack, block=block, size=size)
        if self.blocks % stack.axes:
            raise ValueError(f"block={block}: {self.blocks} blocks in a head, which must be a multiple of {stack.axes}")

    def along(self, at: Tensor, layer: int) -> Tensor:
        return at.repeat(1, 1, self.blocks // at.shape[-1])


class ComropeLd(_Commuting):
    """ComRoPE-LD: block j is turned by exp(sum_a p_a m_aj (F_j - F_j^T)): one matrix, a multiple for each axis.

    F (b,b) is learnt for each layer, head and block of b channels, m for each layer, axis and block; both start from
    N(0, 1) ("linearly dependent"). Coordinates and CLS tokens are as in `comrope_ap`.

    Options:
        block, size: as ComRoPE-AP's; a head may hold any number of blocks.
    """

    name = "comrope_ld"
    look = ("rotary", 21)
    title = "learnt rotations of many channels, by one matrix times a learnt number for each axis"
    paper = "Yu et al. 2025, arXiv:2506.03737, section 4; the released code"
    formula = "(R_i q).(R_j k), R_p turns block j by exp(sum_a p_a m_aj (F_j - F_j^T)), m and F learnt"

    def __init__(self, stack: Stack, *, block: int = 4, size: int = 0) -> None:
        super().__init__(stack, block=block, size=size)
        self.multiples = nn.Parameter(torch.empty(stack.layers, stack.axes, self.blocks))

    def initialise(self, generator: torch.Generator) -> None:
        super().initialise(generator)
        normal_(self.multiples, 1.0, generator)

    def along(self, at: Tensor, layer: int) -> Tensor:
        return at @ self.multiples[layer].double()
