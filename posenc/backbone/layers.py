"""Attention and feed-forward parts, a layer of them, and a stack of layers with its encoding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from posenc.api.encoding import Context, Encoding, prepare
from posenc.api.rows import convolved
from posenc.attention.interface import DecodingCache, Kernel, LayerCache, Memory
from posenc.attention.linear import kernel as linear
from posenc.attention.softmax.kernel import Softmax
from posenc.backbone.compilation import compiled
from posenc.backbone.config import BackboneConfig
from posenc.common.errors import NotPossibleError
from posenc.common.seeds import derive


def kernel_for(config: BackboneConfig, encoding: Encoding, *, causal: bool, backend: str) -> Kernel:
    """The form of attention that a backbone's configuration and an encoding ask for.

    Raises:
        NotPossibleError: none serves both.
    """
    if config.attention == "softmax":
        return Softmax(causal=causal, backend=backend, dropout=config.attention_dropout)
    if (reason := linear.why_not(encoding, config.features)) is not None:
        raise NotPossibleError(reason)
    return linear.kernel(encoding, causal=causal, features=config.features, chunk=config.chunk)


def cross_kernel(config: BackboneConfig, backend: str) -> Kernel:
    """The same form of attention to another stack's output, in which no encoding has a part."""
    if config.attention == "softmax":
        return Softmax(causal=False, backend=backend, dropout=config.attention_dropout)
    width = config.width // config.heads
    return linear.FORMS["as_is"](causal=False, width=width, features=config.features, chunk=config.chunk)


class ShortConvolution(nn.Module):
    """x_t + sum of taps_w * x_(t-w), w from 0 to W - 1, channel by channel, on queries, keys and values as projected.

    Tokens tell their order by it, whatever the encoding: a control. As in Canon layers on queries, keys and values
    (Allen-Zhu 2025, arXiv:2512.17351, "Canon-B"): with a residual, without an activation; in encoders it is causal too.
    Taps (3,D,W), the last a token's own, start at 0: a model starts as it would without them.
    """

    def __init__(self, width: int, span: int) -> None:
        super().__init__()
        self.taps = nn.Parameter(torch.zeros(3, width, span))

    def forward(self, x: Tensor, context: Context, cache: LayerCache | None) -> Tensor:
        """Of x (B,L,3D). Padding is no token before the first, and each packed example begins anew."""
        if context.mask is not None:
            x = x.masked_fill(~context.mask[:, context.offset :, None], 0.0)
        seen = x if cache is None or cache.tail is None else torch.cat((cache.tail, x), dim=1)
        if cache is not None:
            cache.tail = seen[:, max(seen.shape[1] - self.taps.shape[-1] + 1, 0) :]
        segments = None if context.segments is None else context.segments[:, context.keys - seen.shape[1] :]
        taps = self.taps.flatten(0, 1).to(x.dtype)
        return x + convolved(seen, taps, segments)[:, seen.shape[1] - x.shape[1] :]


class Attention(nn.Module):
    """Multi-head attention: projections around a kernel, which asks the encoding's hooks.

    Cross-attention has no encoding: position enters it through what the stacks hand over. It has no convolution either.
    """

    def __init__(self, config: BackboneConfig, kernel: Kernel, *, cross: bool = False) -> None:
        super().__init__()
        self.heads = config.heads
        self.query, self.key, self.value, self.out = (nn.Linear(config.width, config.width) for _ in range(4))
        self.kernel = kernel
        span = 0 if cross else config.convolution
        self.convolution = ShortConvolution(config.width, span) if span else None

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def _join(self, heads: Tensor) -> Tensor:
        joined: Tensor = self.out(heads.transpose(1, 2).flatten(2))
        return joined

    def forward(self, x: Tensor, encoding: Encoding, context: Context, cache: LayerCache | None = None) -> Tensor:
        """Self-attention of x (B,L,D)."""
        context.hidden = x
        queries, keys, values = self.projected(x, context, cache)
        return self._join(self.kernel.attend(queries, keys, values, encoding, context, cache))

    def projected(self, x: Tensor, context: Context, cache: LayerCache | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values (B,H,L,K) of x (B,L,D), before any encoding."""
        parts = (self.query(x), self.key(x), self.value(x))
        if self.convolution is not None:
            parts = self.convolution(torch.cat(parts, dim=-1), context, cache).chunk(3, dim=-1)
        queries, keys, values = (self._heads(part) for part in parts)
        return queries, keys, values

    def cross(self, x: Tensor, memory: Memory, cache: LayerCache | None = None) -> Tensor:
        """Attention of x (B,L,D) to another stack's output."""
        queries = self._heads(self.query(x))
        if cache is not None and cache.memory is not None:
            keys, values = cache.memory
        else:
            keys, values = self._heads(self.key(memory.states)), self._heads(self.value(memory.states))
        if cache is not None:
            cache.memory = (keys, values)
        return self._join(self.kernel.cross(queries, keys, values, memory))


class FeedForward(nn.Module):
    """Two linear layers with an activation between."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.inner = nn.Linear(config.width, config.feedforward)
        self.outer = nn.Linear(config.feedforward, config.width)
        self.activation = functional.relu if config.activation == "relu" else functional.gelu

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.outer(self.activation(self.inner(x)))
        return out


class Layer(nn.Module):
    """Self-attention, cross-attention where there is a memory, feed-forward: each with norm, dropout and residual."""

    def __init__(self, config: BackboneConfig, encoding: Encoding, *, causal: bool, cross: bool, backend: str) -> None:
        super().__init__()
        self.pre = config.norm == "pre"
        self.attention = Attention(config, kernel_for(config, encoding, causal=causal, backend=backend))
        self.attention_norm = nn.LayerNorm(config.width)
        if cross:
            self.cross_attention = Attention(config, cross_kernel(config, backend), cross=True)
            self.cross_norm = nn.LayerNorm(config.width)
        self.feedforward = FeedForward(config)
        self.feedforward_norm = nn.LayerNorm(config.width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        x: Tensor,
        encoding: Encoding,
        context: Context,
        memory: Memory | None = None,
        cache: LayerCache | None = None,
    ) -> Tensor:
        y = self.attention_norm(x) if self.pre else x
        x = x + self.dropout(self.attention(y, encoding, context, cache))
        x = x if self.pre else self.attention_norm(x)
        if memory is not None:
            y = self.cross_norm(x) if self.pre else x
            x = x + self.dropout(self.cross_attention.cross(y, memory, cache))
            x = x if self.pre else self.cross_norm(x)
        y = self.feedforward_norm(x) if self.pre else x
        x = x + self.dropout(self.feedforward(y))
        return x if self.pre else self.feedforward_norm(x)


class EncodedStack(nn.Module):
    """Layers served by one encoding instance.

    Raises:
        NotPossibleError: the encoding cannot serve such a stack.
    """

    def __init__(
        self, config: BackboneConfig, encoding: Encoding, *, causal: bool, cross: bool = False, backend: str = "auto"
    ) -> None:
        super().__init__()
        if (reason := encoding.why_not(config.attention)) is not None:
            raise NotPossibleError(reason)
        self.encoding = encoding
        self.causal = causal
        self.layers = nn.ModuleList(
            Layer(config, encoding.at(n), causal=causal, cross=cross, backend=backend) for n in range(config.layers)
        )
        self.embedding_norm = nn.LayerNorm(config.width) if config.embedding_norm else nn.Identity()
        self.final_norm = nn.LayerNorm(config.width) if config.norm == "pre" else nn.Identity()
        self.dropout = nn.Dropout(config.dropout)
        self.generator: torch.Generator | None = None
        self._compiled: Callable[..., Tensor] | None = None

    def compile_training(self, graphs: bool) -> None:
        """Let passes in training mode run compiled, on the device where the stack is: see backbone.compilation."""
        self._compiled = compiled(self._forward, next(self.parameters()).device.type, graphs)

    def forward(self, x: Tensor, **given: Any) -> Tensor:
        """Token embeddings (B,L,D) to hidden states (B,L,D); all that may be given stands with `_forward`."""
        out: Tensor = (self._compiled if self._compiled and self.training else self._forward)(x, **given)
        return out

    def _forward(
        self,
        x: Tensor,
        *,
        mask: Tensor | None = None,
        segments: Tensor | None = None,
        cls: Tensor | None = None,
        coordinates: Tensor | None = None,
        memory: Tensor | None = None,
        memory_mask: Tensor | None = None,
        memory_segments: Tensor | None = None,
        cache: DecodingCache | None = None,
    ) -> Tensor:
        """What `forward` runs, as it is or compiled.

        With a cache, x holds the tokens after those already seen, and mask and segments cover all of them. Packed rows
        with a memory (B,S,D) need its segments (B,S): a token sees of it only what has the segment that it has itself.
        """
        if memory is not None and (segments is None) != (memory_segments is None):
            raise NotPossibleError("not possible: packed rows of one stack, and rows of the other that are not packed")
        if cache is not None and not self.encoding.cached_decoding:
            raise NotPossibleError("not possible: this encoding's cached decoding would not equal the uncached")
        context = prepare(
            self.encoding,
            Context(
                stack=self.encoding.stack,
                queries=x.shape[1],
                keys=x.shape[1] + (cache.length if cache else 0),
                device=x.device,
                mask=mask,
                segments=segments,
                cls=cls,
                coordinates=coordinates,
                training=self.training,
                generator=self.generator,
            ),
        )
        source = None
        if memory is not None:
            pair = None
            if segments is not None and memory_segments is not None:
                pair = (segments[:, context.offset :], memory_segments)
            source = Memory(memory, memory_mask, pair)
        x = self.dropout(self.embedding_norm(self.encoding.embed(x, context.query_positions, context)))
        for index, layer in enumerate(self.layers):
            encoding = self.encoding.at(index)
            context.layer, context.window = index, encoding.window(index)
            x = layer(x, encoding, context, source, cache.layers[index] if cache else None)
        if cache is not None:
            cache.length += x.shape[1]
        out: Tensor = self.final_norm(x)
        return out

    def begin_step(self, seed: int, step: int, redraw: int) -> None:
        """Set every random state of the stack as it stands at this step: nothing else is remembered."""
        device = next(self.parameters()).device
        if self.generator is None or self.generator.device.type != device.type:
            self.generator = torch.Generator(device)
        self.generator.manual_seed(derive(seed, "encoding", step))  # the same one: a CUDA graph draws from it
        drawn = step // redraw if redraw else 0
        for name, module in self.named_modules():
            if isinstance(module, Attention):
                module.kernel.redraw(derive(seed, "features", name, drawn))
