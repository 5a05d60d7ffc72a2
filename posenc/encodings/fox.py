"""The forgetting transformer's gates (Lin et al. 2025), and CABLE's, which are the same with their sign turned."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from posenc.api.encoding import Context, Encoding
from posenc.api.stack import Stack
from posenc.api.starts import xavier_uniform_


class Fox(Encoding):
    """score + sum_{l=j+1..i} log f_l, f_l = sigmoid(w_h . x_l + b_h): equations 5 to 8 of the paper.

    What lies behind a gate is forgotten by so much: a bias by position that depends on the data. x is what the layer's
    projections see; w and b are each layer's own, w by Glorot's rule, b from 0 (the authors' b starts there too). The
    paper's "pro" block (key shift, output gate and norms) is another thing and no part of this.

    Decoding with cached keys would need the sum so far, which no step keeps: it decodes without a cache.
    """

    name = "fox"
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
        weight, bias = self.weight[context.layer].to(hidden.dtype), self.bias[context.layer].to(hidden.dtype)
        logs = functional.logsigmoid(self.sign * functional.linear(hidden, weight, bias))  # (B,S,H)
        logs = logs.transpose(1, 2)
        if context.mask is not None:  # what stands at padding does not count, not even in the last bit
            logs = logs.masked_fill(~context.mask[:, None], 0.0)
        return logs

    def score_bias(self, queries: Tensor, keys: Tensor, context: Context) -> Tensor:
        logs = self.log_decay(context)
        sums = logs.double().cumsum(-1)  # in float32 differences of long sums would lose the digits of short ones
        return (sums[:, :, context.offset :, None] - sums[:, :, None]).to(logs.dtype)


class Cable(Fox):
    """score + sum_{l=j+1..i} -softplus(w_h . x_l + b_h): FoX with w and b negated, so the same family of models.

    The authors' code divides by sqrt(C / n_embd), which is 1: their scores have no 1/sqrt(K). That belongs to their
    attention and is not taken over: scores are scaled here as everywhere else.
    """

    name = "cable"
    title = "biases summed from the tokens between, which depend on the data (FoX with its gate's sign turned)"
    paper = "Veisi et al. 2025, arXiv:2503.08067, section 3"
    formula = "s - sum_{l=j+1..i} softplus(w.x_l + b)"
    sign = -1.0
