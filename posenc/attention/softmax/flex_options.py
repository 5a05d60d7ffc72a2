"""Which of FlexAttention's kernel options fit a card's shared memory: a fixed list, tried in order, told afterwards.

By count, a forward kernel of M queries x N keys in bf16 on heads of 64 holds 128 M bytes of queries and, a stage, 256 N
of keys and values; a bias read by distance is fetched in float32 for each pair and held too, 4 M N bytes a stage but
one. torch's own choice for a Hopper card, 128 x 128 in three stages, so takes 114,688 bytes without a bias, and
114,688 + 2 x 65,536 = 245,760 with one: more than the 232,448 there are. Two stages take 147,456.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import dtype

from posenc.api.blame import said
from posenc.common.errors import NotPossibleError

Options = dict[str, Any]
OPTIONS: dict[str, Options] = {
    "torch's own": {},
    "two stages": {"num_stages": 2},
    "64 x 64, two stages": {
        "fwd_BLOCK_M": 64, "fwd_BLOCK_N": 64, "bwd_BLOCK_M1": 32, "bwd_BLOCK_N1": 64, "bwd_BLOCK_M2": 64,
        "bwd_BLOCK_N2": 32, "num_stages": 2,
    },
    "32 x 32, one stage": {
        "fwd_BLOCK_M": 32, "fwd_BLOCK_N": 32, "bwd_BLOCK_M1": 32, "bwd_BLOCK_N1": 32, "bwd_BLOCK_M2": 32,
        "bwd_BLOCK_N2": 32, "num_stages": 1,
    },
}  # fmt: skip
"""By name, from the largest to the smallest: torch.nn.attention.flex_attention.FlexKernelOptions."""
TOO_LARGE = ("out of resource", "no valid triton configs")
"""What Triton and Inductor say of a kernel that does not fit."""


@dataclass(frozen=True)
class Kind:
    """What of a call decides whether a kernel fits: lengths and heads do not.

    Attributes:
        widths: of a head's queries and values. line, near: what is added to scores. gradients: a backward pass too.
    """

    device: str
    precision: dtype
    widths: tuple[int, int]
    line: bool
    near: bool
    gradients: bool

    def __str__(self) -> str:
        added = "+".join(name for name in ("line", "near") if getattr(self, name)) or "no bias"
        steps = "forward and backward" if self.gradients else "forward"
        return f"{str(self.precision).removeprefix('torch.')}, heads of {self.widths[0]}, {added}, {steps}"


_taken: dict[Kind, str] = {}


def options_for(kind: Kind, attempt: Callable[[Kind, Options], object]) -> Options:
    """The first options of the list with which `attempt`, a pass over tiny tensors, fits; tried once in a process.

    Raises:
        NotPossibleError: none fits; or the attempt failed by another cause, which none would mend.
    """
    if kind in _taken:
        return OPTIONS[_taken[kind]]
    for name, options in OPTIONS.items():
        try:
            attempt(kind, options)
        except Exception as error:
            told = _told(error)
            if not any(word in told.lower() for word in TOO_LARGE):
                raise NotPossibleError(f"not possible: backend 'flex' ({kind}): {said(error)}") from error
            last = error
            continue
        _taken[kind] = name
        return options
    raise NotPossibleError(
        f"not possible: backend 'flex' ({kind}): no kernel fits this card, down to {name}: {said(last)}"
    ) from last


def _told(error: BaseException | None) -> str:
    """All that an error and its causes say."""
    told = []
    while error is not None:
        told.append(str(error))
        error = error.__cause__ or error.__context__
    return " ".join(told)


def taken() -> dict[str, str]:
    """The name in OPTIONS of what was taken in this process, by kind of call."""
    return {str(kind): name for kind, name in _taken.items()}
