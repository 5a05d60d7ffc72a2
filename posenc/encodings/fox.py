"""The forgetting transformer's gates (Lin et al. 2025), and CABLE's, which are the same with their sign turned."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from posenc.api.encoding import Context, Encoding
from posenc.api.stack import Stack
from posenc.api.starts import xavier_uniform_


def log_gates(hidden: Tensor, weight: Tensor, bias: Tensor, context: Context, sign: float = 1.0) -> Tensor:
    """log sigmoid(sign (w_h . x + b_h)) of hidden states (B,S,D), (B,H,S); 0 at padding.

    What stands at padding does not count, not even in the last bit.
    """
    weight, bias = weight.to(hidden.dtype), bias.to(hidden.dtype)
    logs = functional.logsigmoid(sign * functional.linear(hidden, weight, bias)).transpose(1, 2)
    return logs if context.mask is None else logs.masked_fill(~context.mask[:, None], 0.0)


def since(logs: Tensor, context: Context) -> Tensor:
    """The sum of logs (B,H,S) over j < l <= i, (B,H,L,S)."""
    sums = logs.double().cumsum(-1)  # in float32 differences of long sums would lose the digits of short ones
    return (sums[:, :, context.offset :, None] - sums[:, :, None]).to(logs.dtype)


class Fox(Encoding):
    """score + sum_{l=j+1..i} log f_l, f_l = sigmoid(w_h . x_l + b_h): equations 5 to 8 of the paper.

    What lies behind a gate is forgotten by so much: a bias by position that depends on the data. x is what the layer's
    projections see; w and b are each layer's own, w by Glorot's rule, b from 0 (the authors' b starts there too). The
    paper's "pro" block (key shift, output gate and norms) is another thing and no part of this.

    Decoding with cached keys would need the sum so far, which no step keeps: it decodes without a cache.
    """

    name = "fox"
    look = ("content", 0)
    title = "gates that depend on the data and forget what lies behind them"
    paper = "Lin et al. 2025, arXiv:2503.02130, equations 5 to 8"
    formula = "s + sum_{l=j+1..i} log sigmoid(w.x_l + b)"
    directions = frozenset({"causal"})
    relative = True
    cached_decoding = False
    linear_form = "decay"
    sign = 1.0

    def __init__(self, stack: Stack) -> None:
        super().__init__(stack)
        self.weight = nn.Parameter(torch.empty(stack.layers, stack.heads, stack.width))
        self.bias = nn.Parameter(torch.empty(stack.layers, stack.heads))

    def initialise(self, generator: torch.Generator) -> None:
        for weight in self.weight:
            xavier_uniform_(weight, generator)
        nn.init.zeros_(self.bias)

    def log_decay(self, context: Context) -> Tensor:
        """log f of this layer, (B,H,S); 0 at padding."""
        assert context.hidden is not None  # attention sets it in each layer
        hidden = context.hidden.to(torch.promote_types(context.hidden.dtype, torch.float32))
        return log_gates(hidden, self.weight[context.layer], self.bias[context.layer], context, self.sign)

    def score_bias(self, queries: Tensor, keys: Tensor, context: Context) -> Tensor:
        return since(self.log_decay(context), context)


class Cable(Fox):
    """score + sum_{l=j+1..i} -softplus(w_h . x_l + b_h): FoX with w and b negated, so the same family of models.

    The authors' code divides by sqrt(C / n_embd), which is 1: their scores have no 1/sqrt(K). That belongs to their
    attention and is not taken over: scores are scaled here as everywhere else.
    """

    name = "cable"
    look = ("content", 3)
    title = "biases summed from the tokens between, which depend on the data (FoX with its gate's sign turned)"
    paper = "Veisi et al. 2025, arXiv:2503.08067, section 3"
    formula = "s - sum_{l=j+1..i} softplus(w.x_l + b)"
    sign = -1.0
