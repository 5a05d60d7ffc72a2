"""A decoder in plain PyTorch, with nothing that could be left out: what posenc's own backbone is measured against.

embed -> layers x (norm, attention, norm, feed-forward) -> norm -> logits by the embedding table
"""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional

from posenc.backbone.compilation import compiled


class BareLayer(nn.Module):
    """Pre-norm attention and feed-forward."""

    def __init__(self, width: int, heads: int, feedforward: int, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.attention_norm, self.feedforward_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.inner, self.outer = nn.Linear(width, feedforward), nn.Linear(feedforward, width)

    def forward(self, x: Tensor, rotate: Callable[[Tensor], Tensor] | None) -> Tensor:
        y = self.attention_norm(x)
        q, k, v = (
            part(y).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.query, self.key, self.value)
        )
        if rotate is not None:
            q, k = rotate(q), rotate(k)
        heads = functional.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        x = x + self.out(heads.transpose(1, 2).flatten(2))
        y = self.feedforward_norm(x)
        out: Tensor = x + self.outer(functional.gelu(self.inner(y)))
        return out


class BareDecoder(nn.Module):
    """Tokens (B,L) to logits (B,L,vocabulary). `rotate` turns queries and keys (B,H,L,K), where there is one."""

    def __init__(
        self,
        *,
        layers: int,
        width: int,
        heads: int,
        feedforward: int,
        vocabulary: int = 256,
        causal: bool = True,
        rotate: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.scale, self.rotate = math.sqrt(width), rotate
        self.embedding = nn.Embedding(vocabulary, width)
        nn.init.normal_(self.embedding.weight, std=width**-0.5)
        self.layers = nn.ModuleList(BareLayer(width, heads, feedforward, causal) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def compile_training(self, graphs: bool) -> None:
        """As posenc's own backbone is compiled."""
        self.forward = compiled(self.forward, self.embedding.weight.device.type, graphs)  # type: ignore[method-assign]

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens) * self.scale
        for layer in self.layers:
            x = layer(x, self.rotate)
        return functional.linear(self.norm(x), self.embedding.weight)
