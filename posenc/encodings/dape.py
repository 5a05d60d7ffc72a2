"""DAPE: a bias that adapts to the scores (Zheng et al. 2024), and its second version, with convolutions."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from posenc.api.encoding import Context, Encoding
from posenc.api.spec import Nested
from posenc.api.stack import Stack
from posenc.api.starts import uniform_
from posenc.common.errors import NotPossibleError

HIDDEN = 32


class Dape(Encoding):
    """S + B + f([S; B]): S the scaled scores, B a bias by distance, f a network over the heads of both (equation 4).

    f is Linear(2H, 32), leaky ReLU (0.01), Linear(32, H), with biases, for each pair and in each layer its own; it
    starts as torch starts linear layers. The bias is an encoding that this one owns, since f needs it apart.

    Options:
        bias: an encoding with a bias by distance and nothing else: kerple, alibi, t5.
    """

    name = "dape"
    look = ("content", 5)
    title = "a bias by distance that a small network over the heads adapts to the scores"
    paper = "Zheng et al. 2024, arXiv:2405.14722, equation 4"
    formula = "s + b + MLP over heads of [s; b]"
    linear_reason = "not possible: it changes the scores of all pairs"
    taps = 1

    def __init__(self, stack: Stack, *, bias: Nested = Nested("kerple")) -> None:  # noqa: B008  # text
        super().__init__(stack)
        self.inner_encoding = part = bias(stack)
        others = ("positions", "embed", "rotate_query", "score_bias", "pair_scores", "change_scores", "mix_values")
        if not part.overrides("distance_bias") or any(map(part.overrides, others)) or part.at(0) is not part:
            raise NotPossibleError(f"not possible: {self.name} adapts a bias by distance, and {bias} is something else")
        self._most = part.max_length
        for name in ("directions", "relative"):  # as its bias
            setattr(self, name, getattr(part, name))
        layers, heads = stack.layers, stack.heads
        self.first = nn.Parameter(torch.empty(layers, HIDDEN, 2 * heads, self.taps))
        self.second = nn.Parameter(torch.empty(layers, heads, HIDDEN, self.taps))
        self.first_bias, self.second_bias = (nn.Parameter(torch.empty(layers, n)) for n in (HIDDEN, heads))

    @property
    def max_length(self) -> int | None:
        return self._most

    def initialise(self, generator: torch.Generator) -> None:
        self.inner_encoding.initialise(generator)
        for weight, bias in ((self.first, self.first_bias), (self.second, self.second_bias)):
            bound = (weight.shape[2] * self.taps) ** -0.5
            uniform_(weight, bound, generator)
            uniform_(bias, bound, generator)

    def _bias(self, scores: Tensor, context: Context) -> Tensor:
        """(B,H,L,S)"""
        first, last = 1 - context.queries - context.offset, context.keys - context.offset
        part = self.inner_encoding

        def laid_out() -> Tensor:
            line = part.distance_bias(torch.arange(first, last, device=scores.device), context)
            return line.unfold(1, context.keys, 1).flip(1)[None]

        table = context.once(self, "bias", laid_out) if part.shared else laid_out()
        return table.to(scores.dtype).expand_as(scores)

    def _network(self, both: Tensor, context: Context) -> Tensor:
        """(B,2H,L,S) to (B,H,L,S): convolutions along the keys, of `taps` places."""
        hidden = self._along(both, self.first[context.layer], self.first_bias[context.layer])
        return self._along(functional.leaky_relu(hidden), self.second[context.layer], self.second_bias[context.layer])

    def _along(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        kernel = weight[:, :, None].to(x.dtype)
        return functional.conv2d(x, kernel, bias.to(x.dtype), padding=(0, self.taps // 2))

    def change_scores(self, scores: Tensor, queries: Tensor, keys: Tensor, context: Context) -> Tensor:
        bias = self._bias(scores, context)
        return scores + bias + self._network(torch.cat((scores, bias), dim=1), context)


class DapeV2(Dape):
    """DAPE with convolutions of three keys in place of the linear layers (Zheng et al. 2024b, section 3).

    A pair reads its neighbours, so what is hidden must be 0 first, scores and bias: else the future leaks. And the
    first convolution's answer beside a row, or beside a packed example in it, is 0, as it is at the ends of a row that
    stands alone. Beyond the diagonal it is not, as in the authors' code: there it depends on what is visible. So a
    row's last token, and it alone, has a neighbour of 0 there: decoding with a cache, where every token is the last for
    once, would give other numbers, and is not done.
    """

    name = "dape_v2"
    look = ("content", 6)
    title = "a bias by distance that convolutions over heads and neighbouring keys adapt to the scores"
    paper = "Zheng et al. 2024, arXiv:2410.04798, section 3"
    formula = "s + b + convolutions along keys of [s; b]"
    cached_decoding = False
    taps = 3

    def _network(self, both: Tensor, context: Context) -> Tensor:
        seen = both * context.visible
        hidden = functional.leaky_relu(self._along(seen, self.first[context.layer], self.first_bias[context.layer]))
        if context.segments is not None:
            same = context.segments[:, context.offset :, None] == context.segments[:, None]
            hidden = hidden * same[:, None]
        if context.mask is not None:
            hidden = hidden * context.mask[:, None, None]
        return self._along(hidden, self.second[context.layer], self.second_bias[context.layer])
