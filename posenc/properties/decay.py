"""How the score of a query and a key of the same content falls with their distance: what an encoding prefers."""

from __future__ import annotations

import torch

from posenc.api.blame import HookError
from posenc.api.encoding import Context, Encoding
from posenc.properties.layers import context_of, plain_scores
from posenc.properties.subject import Subject

DRAWS = 64
LENGTH = 128


@torch.no_grad()
def decay(subject: Subject) -> list[float] | None:
    """The score at each distance from 0 on, query behind key, less that at 0: the mean of the first layer's heads.

    The content of a query, and of the key that equals it, is drawn DRAWS times with variance 1. None where no softmax
    attention takes the encoding, where position enters otherwise than by scores, or several axes are read.
    """
    for causal in (True, False):
        for _, _, encoding in subject.models(causal=causal, kind="softmax"):
            if encoding.axes in (None, 1) and not encoding.overrides("positions") and not encoding.overrides("embed"):
                return _curve(encoding.at(0))
    return None


def _curve(encoding: Encoding) -> list[float]:
    stack, generator = encoding.stack, torch.Generator().manual_seed(0)
    length = min(LENGTH, encoding.max_length or LENGTH)
    drawn = torch.randn(DRAWS, stack.heads, 1, stack.head_width, generator=generator, dtype=torch.float64)
    content = drawn.expand(-1, -1, length, -1)
    context: Context = context_of(encoding, length, 0, torch.Generator().manual_seed(0))
    context.hidden = torch.randn(DRAWS, length, stack.width, generator=generator, dtype=torch.float64)
    scores = plain_scores(content, content, encoding, context).mean(dim=(0, 1))[-1].flip(0)
    if not scores.isfinite().all():
        raise HookError("a score is not finite")
    found: list[float] = (scores - scores[0]).tolist()
    return found
