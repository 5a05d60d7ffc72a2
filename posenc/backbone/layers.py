"""Attention and feed-forward parts, a layer of them, and a stack of layers with its encoding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from posenc.attention import memory_efficient
from posenc.attention.favor import favor_attention, orthogonal_features
from posenc.attention.reference import without_autocast
from posenc.attention.softmax import (
    BY_DISTANCE,
    choose_backend,
    distance_attention,
    is_packed_alone,
    score_table,
    softmax_attention,
    visible_memory,
)
from posenc.backbone.config import BackboneConfig
from posenc.compilation import compiled
from posenc.encoding import Context, Encoding, prepare
from posenc.errors import NotPossibleError
from posenc.seeds import derive


class LayerCache:
    """Keys and values that one layer has seen, for cached decoding. Raw keys serve `score_bias`.

    Attributes:
        parts: keys, raw keys and values (B,H,S,K) of self-attention. memory: keys and values of cross-attention.
    """

    def __init__(self) -> None:
        self.parts: tuple[Tensor, ...] | None = None
        self.memory: tuple[Tensor, ...] | None = None

    def append(self, keys: Tensor, raw: Tensor, values: Tensor) -> tuple[Tensor, ...]:
        if self.parts is not None:
            old_keys, old_raw, old_values = self.parts
            keys = torch.cat((old_keys, keys), dim=2)
            raw = torch.cat((old_raw, raw), dim=2)
            values = torch.cat((old_values, values), dim=2)
        self.parts = (keys, raw, values)
        return self.parts

    def select(self, rows: Tensor) -> None:
        self.parts = self.parts and tuple(part[rows] for part in self.parts)
        self.memory = self.memory and tuple(part[rows] for part in self.memory)


class DecodingCache:
    """What a decoder keeps between steps of cached decoding: one LayerCache a layer, and how long it is."""

    def __init__(self, layers: int) -> None:
        self.layers = [LayerCache() for _ in range(layers)]
        self.length = 0

    def select(self, rows: Tensor) -> None:
        """Go on with these rows of the batch, in this order; a row may be taken more than once (beam search)."""
        for layer in self.layers:
            layer.select(rows)


@dataclass(frozen=True)
class Memory:
    """The other stack's output (B,S,D), for cross-attention.

    Attributes:
        mask: (B,S) bool, True at its real tokens; None where all are.
        seen: (B,1,1 or L,S) bool, what each of the L queries may see of it; None where all of it.
    """

    states: Tensor
    mask: Tensor | None = None
    seen: Tensor | None = None


class Attention(nn.Module):
    """Multi-head attention: projections around softmax attention or FAVOR+, with the encoding's hooks.

    Cross-attention has no encoding: position enters it through what the stacks hand over.
    """

    projection: Tensor

    def __init__(self, config: BackboneConfig, *, causal: bool, backend: str) -> None:
        super().__init__()
        self.heads, self.causal, self.asked = config.heads, causal, backend
        self.performer = config.attention == "performer"
        self.chunk, self.dropout = config.chunk, config.attention_dropout
        self.query, self.key, self.value, self.out = (nn.Linear(config.width, config.width) for _ in range(4))
        self.drawn: int | None = None
        if self.performer:
            features = torch.empty(config.features, config.width // config.heads, dtype=torch.float64)
            self.register_buffer("projection", features, persistent=False)  # redrawn from seed and step

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def forward(self, x: Tensor, encoding: Encoding, context: Context, cache: LayerCache | None = None) -> Tensor:
        """Self-attention of x (B,L,D)."""
        raw_queries, raw_keys, values = self._heads(self.query(x)), self._heads(self.key(x)), self._heads(self.value(x))
        if self.performer and encoding.linear_form == "outside":
            return self._linear(
                raw_queries, raw_keys, values, encoding.score_scale, self.causal, context.mask, encoding, context
            )
        queries = encoding.rotate_query(raw_queries, context.query_positions, context)
        keys = encoding.rotate_key(raw_keys, context.query_positions, context)  # the new keys stand at the queries
        if self.performer:
            return self._linear(queries, keys, values, encoding.score_scale, self.causal, context.mask)
        if cache is not None:
            keys, raw_keys, values = cache.append(keys, raw_keys, values)
        dropout = self.dropout if self.training else 0.0
        backend = choose_backend(self.asked, encoding, self.dropout, x.device.type, queries.requires_grad)
        if backend in BY_DISTANCE:
            return self._join(distance_attention(encoding, raw_queries, queries, keys, values, context, backend))
        if backend == "xformers" and is_packed_alone(encoding, context):
            assert context.segments is not None
            packed = (queries, keys, values, context.segments, self.causal, encoding.score_scale, context.cache)
            return self._join(memory_efficient.attend_packed(*packed))
        heads = softmax_attention(
            queries,
            keys,
            values,
            table=score_table(encoding, raw_queries, raw_keys, context),
            causal=self.causal,
            scale=encoding.score_scale,
            backend=backend,
            dropout=dropout,
            encoding=encoding,
            context=context,
        )
        return self._join(heads)

    def cross(self, x: Tensor, memory: Memory, cache: LayerCache | None = None) -> Tensor:
        """Attention of x (B,L,D) to another stack's output."""
        queries = self._heads(self.query(x))
        if cache is not None and cache.memory is not None:
            keys, values = cache.memory
        else:
            keys, values = self._heads(self.key(memory.states)), self._heads(self.value(memory.states))
        if cache is not None:
            cache.memory = (keys, values)
        scale = queries.shape[-1] ** -0.5
        if self.performer:
            return self._linear(queries, keys, values, scale, False, memory.mask)
        table = None if memory.seen is None else memory.seen.expand(-1, 1, x.shape[1], -1)
        dropout = self.dropout if self.training else 0.0
        # No hook runs here, so the weights are needed only where dropout falls on them.
        backend = "reference" if self.dropout else ("sdpa" if self.asked == "auto" else self.asked)
        heads = softmax_attention(
            queries, keys, values, table=table, causal=False, scale=scale, backend=backend, dropout=dropout
        )
        return self._join(heads)

    def _linear(
        self,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        scale: float,
        causal: bool,
        mask: Tensor | None,
        encoding: Encoding | None = None,
        context: Context | None = None,
    ) -> Tensor:
        def rotate(query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
            assert encoding is not None and context is not None
            positions = context.query_positions
            return encoding.rotate_query(query, positions, context), encoding.rotate_key(key, positions, context)

        with without_autocast(queries.device):
            heads = favor_attention(
                queries,
                keys,
                values,
                self.projection,
                scale=scale,
                causal=causal,
                mask=mask,
                rotate=rotate if encoding is not None else None,
                chunk=self.chunk,
            )
        return self._join(heads.to(queries.dtype))

    def _join(self, heads: Tensor) -> Tensor:
        joined: Tensor = self.out(heads.transpose(1, 2).flatten(2))
        return joined

    def redraw(self, seed: int) -> None:
        """Draw the random features that belong to a seed (performer), unless they are those drawn last."""
        if self.performer and seed != self.drawn:
            generator = torch.Generator().manual_seed(seed)
            features, width = self.projection.shape
            self.projection.copy_(orthogonal_features(features, width, generator))
            self.drawn = seed


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

    def __init__(self, config: BackboneConfig, *, causal: bool, cross: bool, backend: str) -> None:
        super().__init__()
        self.pre = config.norm == "pre"
        self.attention = Attention(config, causal=causal, backend=backend)
        self.attention_norm = nn.LayerNorm(config.width)
        if cross:
            self.cross_attention = Attention(config, causal=False, backend=backend)
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
        reason = encoding.why_not(config.attention)
        if reason is None and config.attention == "performer" and encoding.linear_form == "outside":
            reason = encoding.why_not_features(config.features)
        if reason is not None:
            raise NotPossibleError(reason)
        self.encoding = encoding
        self.causal, self.performer = causal, config.attention == "performer"
        layers = (Layer(config, causal=causal, cross=cross, backend=backend) for _ in range(config.layers))
        self.layers = nn.ModuleList(layers)
        self.final_norm = nn.LayerNorm(config.width) if config.norm == "pre" else nn.Identity()
        self.dropout = nn.Dropout(config.dropout)
        self.generator: torch.Generator | None = None
        self._compiled: Callable[..., Tensor] | None = None

    def compile_training(self, graphs: bool) -> None:
        """Let passes in training mode run compiled, on the device where the stack is: see posenc.compilation."""
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
        memory: Tensor | None = None,
        memory_mask: Tensor | None = None,
        memory_segments: Tensor | None = None,
        cache: DecodingCache | None = None,
    ) -> Tensor:
        """What `forward` runs, as it is or compiled.

        With a cache, x holds the tokens after those already seen, and mask and segments cover all of them. Packed rows
        with a memory (B,S,D) need its segments (B,S): a token sees of it only what has the segment that it has itself.
        """
        if self.performer and (segments is not None or cache is not None):
            raise NotPossibleError("not built: packed rows and cached decoding with a Performer")
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
                training=self.training,
                generator=self.generator,
            ),
        )
        source = None
        if memory is not None:
            asking = None if segments is None else segments[:, context.offset :]
            source = Memory(memory, memory_mask, visible_memory(memory_mask, asking, memory_segments))
        x = self.dropout(self.encoding.embed(x, context.query_positions, context))
        for index, layer in enumerate(self.layers):
            context.layer = index
            x = layer(x, self.encoding, context, source, cache.layers[index] if cache else None)
        if cache is not None:
            cache.length += x.shape[1]
        out: Tensor = self.final_norm(x)
        return out

    def begin_step(self, seed: int, step: int, redraw: int) -> None:
        """Set every random state of the stack as it stands at this step: nothing else is remembered."""
        device = next(self.parameters()).device
        self.generator = torch.Generator(device).manual_seed(derive(seed, "encoding", step))
        drawn = step // redraw if redraw else 0
        for name, module in self.named_modules():
            if isinstance(module, Attention):
                module.redraw(derive(seed, "features", name, drawn))
