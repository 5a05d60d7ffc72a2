"""The transformer: embeddings, one or two stacks, an output layer; and how its parameters start.

Token embeddings enter with a root mean square of 1 for every encoding alike: drawn with standard deviation
1/sqrt(D) and multiplied by sqrt(D) (Vaswani et al. 2017, section 3.4).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from posenc.api import registry
from posenc.api.encoding import Encoding
from posenc.api.starts import normal_, xavier_uniform_
from posenc.attention.interface import DecodingCache
from posenc.backbone.config import BackboneConfig
from posenc.backbone.inputs import Patches, axes_read
from posenc.backbone.layers import EncodedStack
from posenc.common.errors import NotPossibleError
from posenc.common.seeds import derive


class MaskedHead(nn.Module):
    """Before the output layer of a masked LM: a layer, GELU, a norm; and its bias (Devlin et al. 2019, their code)."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.width, config.width)
        self.norm = nn.LayerNorm(config.width)
        self.bias = nn.Parameter(torch.zeros(config.vocabulary))

    def forward(self, hidden: Tensor) -> Tensor:
        out: Tensor = self.norm(functional.gelu(self.dense(hidden)))
        return out


class ClassHead(nn.Module):
    """BERT's pooler, dropout, and a linear layer (Devlin et al. 2019, section 3.2 and their code)."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.pooler = nn.Linear(config.width, config.width)
        self.dropout = nn.Dropout(config.dropout)
        self.out = nn.Linear(config.width, config.outputs)

    def forward(self, first: Tensor) -> Tensor:
        out: Tensor = self.out(self.dropout(torch.tanh(self.pooler(first))))
        return out


class MeanHead(nn.Module):
    """The mean over a row's real tokens, or over the one that stands for it, dropout, and a linear layer."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.dropout = nn.Dropout(config.dropout)
        self.out = nn.Linear(config.width, config.outputs)

    def forward(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        if mask is None:
            mean = hidden.mean(dim=1)
        else:
            real = mask[..., None].to(hidden.dtype)
            mean = (hidden * real).sum(dim=1) / real.sum(dim=1).clamp_min(1)
        out: Tensor = self.out(self.dropout(mean))
        return out


def table(rows: int, width: int) -> nn.Embedding:
    """An embedding (rows, width) that `Transformer.initialise` draws: nn.Embedding's own start, which would be thrown
    away, loads PyTorch's compiler where tensors have no memory (three seconds of a plan)."""
    return nn.Embedding(rows, width, _weight=torch.zeros(rows, width))


class Transformer(nn.Module):
    """A backbone with an encoding in each of its stacks.

    Args:
        config: its shape.
        encoding: as written in a suite: `rope`, `sinusoidal+rope`, `rope(base=500000)`.
        max_length: the largest length trained on, in tokens.
        backend: of softmax attention.
        axes: how many coordinates a position has; of more than one, every pass is given them. None: 1 of tokens, and
            of patches as many as `axes_read` tells.

    Raises:
        NotPossibleError: the encoding cannot serve this backbone.
    """

    def __init__(
        self, config: BackboneConfig, encoding: str, max_length: int, backend: str = "auto", axes: int | None = None
    ) -> None:
        super().__init__()
        self.config = config
        self.axes = axes_read(config, encoding, max_length) if axes is None else axes
        if config.patch:
            self.patches = Patches(config)
        else:
            self.embedding = table(config.vocabulary, config.width)
        for stack in config.stacks(max_length, self.axes):
            name = "decoder" if stack.causal else "encoder"
            cross = stack.causal and config.form == "encoder-decoder"
            part = EncodedStack(
                config, registry.create(encoding, stack), causal=stack.causal, cross=cross, backend=backend
            )
            self.add_module(name, part)
        if config.head == "masked":
            self.head: nn.Module = MaskedHead(config)
        elif config.head == "class" and not config.patch:
            self.head = ClassHead(config)
        elif config.head in ("class", "mean"):
            self.head = MeanHead(config)
        elif not config.tied:
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
            if name.endswith("embedding.weight"):
                normal_(parameter, self.config.width**-0.5, generator)
            elif name == "patches.weight":
                normal_(parameter, self.config.patch_values**-0.5, generator)
            elif name == "patches.cls":
                normal_(parameter, 1.0, generator)
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

    def compile_training(self, graphs: bool = False) -> Transformer:
        """Let the stacks' passes in training mode run compiled: see EncodedStack.compile_training."""
        for _, stack in self.stacks:
            stack.compile_training(graphs)
        return self

    def embed(self, tokens: Tensor) -> Tensor:
        """Tokens (B,L), or patches (B,L,P), to embeddings (B,L,D) with a root mean square of 1 at the start.

        Of patches, with head class, (B,L + 1,D).
        """
        if self.config.patch:
            embedded: Tensor = self.patches(tokens)
            return embedded
        return self.embedding(tokens) * math.sqrt(self.config.width)

    def hidden(
        self,
        tokens: Tensor,
        *,
        mask: Tensor | None = None,
        segments: Tensor | None = None,
        cls: Tensor | None = None,
        coordinates: Tensor | None = None,
        cache: DecodingCache | None = None,
    ) -> Tensor:
        """Hidden states (B,L,D) of tokens (B,L), or patches (B,L,P): of the encoder if there is one, or the decoder.

        Of patches, with head class, (B,L + 1,D), the first of what stands for the row.

        Args:
            mask: (B,L) bool, True at real tokens. segments: (B,L) int, packed examples. cls: (B,L) bool.
            coordinates: (B or 1, L, A), where tokens stand; None where they are counted. Of patches they are not handed
                on to an encoding that reads one coordinate.
            cache: the decoder's, for cached decoding; then mask and coordinates cover all tokens so far.
        """
        places = None if self.config.patch and self.axes == 1 else coordinates
        if self.config.patch:
            places, cls = self.patches.placed(tokens, places)
        given = {"mask": mask, "segments": segments, "cls": cls, "coordinates": places}
        if self.config.form == "decoder":
            return self.get_submodule("decoder")(self.embed(tokens), **given, cache=cache)
        if cache is not None:
            raise NotPossibleError("not possible: an encoder sees all tokens at once and has nothing to cache")
        return self.get_submodule("encoder")(self.embed(tokens), **given)

    def forward(
        self,
        tokens: Tensor,
        targets: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        targets_mask: Tensor | None = None,
        segments: Tensor | None = None,
        targets_segments: Tensor | None = None,
        cls: Tensor | None = None,
        cache: DecodingCache | None = None,
    ) -> Tensor:
        """Logits (B,L,vocabulary), or (B,outputs) of a head on whole rows.

        Decoder or encoder: of `tokens`. Encoder-decoder: of `targets` (B,L), having read `tokens` (B,S).
        """
        if self.config.form == "encoder-decoder":
            memory = self.hidden(tokens, mask=mask, segments=segments, cls=cls)
            if targets is None:
                raise NotPossibleError("an encoder-decoder needs targets beside its tokens")
            hidden = self.decode(
                targets, memory, mask=targets_mask, segments=targets_segments, memory_mask=mask,
                memory_segments=segments, cache=cache,
            )  # fmt: skip
            return self.logits(hidden)
        hidden = self.hidden(tokens, mask=mask, segments=segments, cls=cls, cache=cache)
        return self.summarise(hidden, mask) if self.config.outputs else self.logits(hidden)

    def decode(
        self,
        targets: Tensor,
        memory: Tensor,
        *,
        mask: Tensor | None = None,
        segments: Tensor | None = None,
        memory_mask: Tensor | None = None,
        memory_segments: Tensor | None = None,
        cache: DecodingCache | None = None,
    ) -> Tensor:
        """The decoder's hidden states (B,L,D) for targets (B,L), beside the encoder's output `memory` (B,S,D).

        Args:
            segments, memory_segments: (B,L) and (B,S) int, packed examples: a source and its target stand in the same
                row and have the same number.

        Raises:
            NotPossibleError: packed rows on one side alone.
        """
        decoder = self.get_submodule("decoder")
        of_memory = {"memory": memory, "memory_mask": memory_mask, "memory_segments": memory_segments}
        out: Tensor = decoder(self.embed(targets), mask=mask, segments=segments, **of_memory, cache=cache)
        return out

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states (..., D) to logits (..., vocabulary)."""
        if self.config.head == "masked":
            return functional.linear(self.head(hidden), self.embedding.weight, self.head.get_parameter("bias"))
        weight = self.embedding.weight if self.config.tied else self.output.weight
        return functional.linear(hidden, weight)

    def summarise(self, hidden: Tensor, mask: Tensor | None = None) -> Tensor:
        """Hidden states (B,L,D) to one vector a row (B,outputs): read at its first token, or over its real ones."""
        if self.config.summary:
            out: Tensor = self.head(hidden[:, :1], None)
        else:
            out = self.head(hidden[:, 0]) if self.config.head == "class" else self.head(hidden, mask)
        return out

    def encodings(self) -> list[Encoding]:
        return [stack.encoding for _, stack in self.stacks]

    def count_parameters(self) -> dict[str, int]:
        """How many in all, and how many of them belong to the encoding."""
        counts = {"total": 0, "positional": 0}
        for name, parameter in self.named_parameters():
            counts["total"] += parameter.numel()
            counts["positional"] += parameter.numel() if is_positional(name) else 0
        return counts


def is_head(name: str) -> bool:
    """Whether a parameter of a Transformer, by its name, belongs to what stands on its stacks for one objective."""
    return name.startswith("head.")


def is_positional(name: str) -> bool:
    """Whether a parameter of a Transformer, by its name, belongs to an encoding."""
    return ".encoding." in name
