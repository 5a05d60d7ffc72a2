"""The transformer: embeddings, one or two stacks, an output layer; and how its parameters start.

Token embeddings enter with a root mean square of 1 for every encoding alike: drawn with standard deviation
1/sqrt(D) and multiplied by sqrt(D) (Vaswani et al. 2017, section 3.4).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from posenc import registry
from posenc.backbone.config import BackboneConfig
from posenc.backbone.layers import DecodingCache, EncodedStack
from posenc.encoding import Encoding, normal_, xavier_uniform_
from posenc.errors import NotPossibleError
from posenc.seeds import derive


class Transformer(nn.Module):
    """A backbone with an encoding in each of its stacks.

    Args:
        config: its shape.
        encoding: as written in a suite: `rope`, `sinusoidal+rope`, `rope(base=500000)`.
        max_length: the largest length trained on, in tokens.
        backend: of softmax attention.

    Raises:
        NotPossibleError: the encoding cannot serve this backbone.
    """

    def __init__(self, config: BackboneConfig, encoding: str, max_length: int, backend: str = "auto") -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocabulary, config.width)
        for stack in config.stacks(max_length):
            name = "decoder" if stack.causal else "encoder"
            cross = stack.causal and config.form == "encoder-decoder"
            part = EncodedStack(
                config, registry.create(encoding, stack), causal=stack.causal, cross=cross, backend=backend
            )
            self.add_module(name, part)
        if not config.tied:
            self.output = nn.Linear(config.width, config.vocabulary, bias=False)

    @property
    def stacks(self) -> list[tuple[str, EncodedStack]]:
        return [(name, part) for name, part in self.named_children() if isinstance(part, EncodedStack)]

    def initialise(self, seed: int) -> Transformer:
        """Draw every parameter. Each non-positional one is drawn by its own name, so none depends on the encoding."""
        stacks = dict(self.stacks)
        for name, stack in stacks.items():
            stack.encoding.initialise(torch.Generator().manual_seed(derive(seed, "encoding", name)))
        for name, parameter in self.named_parameters():
            if is_positional(name):
                continue
            generator = torch.Generator().manual_seed(derive(seed, "parameter", name))
            if name == "embedding.weight":
                normal_(parameter, self.config.width**-0.5, generator)
            elif parameter.dim() == 2:
                xavier_uniform_(parameter, generator)
            else:
                nn.init.constant_(parameter, 1.0 if name.endswith("norm.weight") else 0.0)
        return self.begin_step(seed, 0)

    def begin_step(self, seed: int, step: int) -> Transformer:
        """Set random features and the encodings' generators as they stand at a step of training."""
        for name, stack in self.stacks:
            stack.begin_step(derive(seed, name), step, self.config.redraw)
        return self

    def embed(self, tokens: Tensor) -> Tensor:
        """Tokens (B,L) to embeddings (B,L,D) with a root mean square of 1 at the start."""
        return self.embedding(tokens) * math.sqrt(self.config.width)

    def hidden(
        self,
        tokens: Tensor,
        *,
        mask: Tensor | None = None,
        segments: Tensor | None = None,
        cls: Tensor | None = None,
        cache: DecodingCache | None = None,
    ) -> Tensor:
        """Hidden states (B,L,D) of tokens (B,L): of the encoder where there is one, else of the decoder.

        Args:
            mask: (B,L) bool, True at real tokens. segments: (B,L) int, packed examples. cls: (B,L) bool.
            cache: the decoder's, for cached decoding; then mask covers all tokens so far.
        """
        if self.config.form == "decoder":
            return self.get_submodule("decoder")(self.embed(tokens), mask=mask, segments=segments, cls=cls, cache=cache)
        if cache is not None:
            raise NotPossibleError("not possible: an encoder sees all tokens at once and has nothing to cache")
        return self.get_submodule("encoder")(self.embed(tokens), mask=mask, segments=segments, cls=cls)

    def forward(
        self,
        tokens: Tensor,
        targets: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        targets_mask: Tensor | None = None,
        segments: Tensor | None = None,
        cls: Tensor | None = None,
        cache: DecodingCache | None = None,
    ) -> Tensor:
        """Logits (B,L,vocabulary).

        Decoder or encoder: of `tokens`. Encoder-decoder: of `targets` (B,L), having read `tokens` (B,S).
        """
        if self.config.form == "encoder-decoder":
            if segments is not None:
                raise NotPossibleError("not built: packed rows in an encoder-decoder")
            memory = self.hidden(tokens, mask=mask, segments=segments, cls=cls)
            if targets is None:
                raise NotPossibleError("an encoder-decoder needs targets beside its tokens")
            return self.logits(self.decode(targets, memory, mask=targets_mask, memory_mask=mask, cache=cache))
        return self.logits(self.hidden(tokens, mask=mask, segments=segments, cls=cls, cache=cache))

    def decode(
        self,
        targets: Tensor,
        memory: Tensor,
        *,
        mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        cache: DecodingCache | None = None,
    ) -> Tensor:
        """The decoder's hidden states (B,L,D) for targets (B,L), beside the encoder's output `memory` (B,S,D)."""
        decoder = self.get_submodule("decoder")
        out: Tensor = decoder(self.embed(targets), mask=mask, memory=memory, memory_mask=memory_mask, cache=cache)
        return out

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states (..., D) to logits (..., vocabulary)."""
        weight = self.embedding.weight if self.config.tied else self.output.weight
        return functional.linear(hidden, weight)

    def encodings(self) -> list[Encoding]:
        return [stack.encoding for _, stack in self.stacks]

    def count_parameters(self) -> dict[str, int]:
        """How many in all, and how many of them belong to the encoding."""
        counts = {"total": 0, "positional": 0}
        for name, parameter in self.named_parameters():
            counts["total"] += parameter.numel()
            counts["positional"] += parameter.numel() if is_positional(name) else 0
        return counts


def is_positional(name: str) -> bool:
    """Whether a parameter of a Transformer, by its name, belongs to an encoding."""
    return ".encoding." in name
