"""What a backbone is made of. One configuration serves all encodings of a comparison."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from posenc.api.stack import Stack
from posenc.common.errors import ConfigError

LARGEST = {"vocabulary": 2**24, "layers": 2**10, "width": 2**16, "heads": 2**12, "feedforward": 2**20,
           "features": 2**16, "chunk": 2**20, "convolution": 64, "channels": 2**10, "patch": 2**10}  # fmt: skip
"""Beyond these a model is a slip of the hand, and would be built for hours before it fails."""


@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """Shape of the transformer.

    Attributes:
        form: decoder (causal), encoder (both ways), or both with cross-attention.
        vocabulary: how many kinds of tokens; set by the data.
        layers: of each stack. width: D. heads: H. feedforward: the inner width.
        attention: softmax, or performer (FAVOR+) in self- and cross-attention.
        scale: of the scores of self-attention: 1 / sqrt of a head's width (sqrt), or 1 (none), as in T5 and in
            Kazemnejad et al. 2023; weights are drawn the same.
        embedding_norm: a layer norm of the embeddings, behind what an encoding adds to them, as BERT has one.
        activation: of the feed-forward part.
        norm: layer norm before each part and once at the end (pre), or after each part (post, as in 2017).
        dropout: on embeddings and on what each part adds. attention_dropout: on attention weights.
        tied: the output layer is the embedding table.
        head: what stands on the stack: logits of tokens, the same behind BERT's transform (masked), or one vector a row
            from its first token, through BERT's pooler (class), or from the mean over its tokens (mean). Of patches the
            first is a learned vector of its own, and there is no pooler (class; Dosovitskiy et al. 2021, eq. 1 and 4).
        outputs: how wide that vector is.
        features: M, random features a head (performer). redraw: new ones every so many steps; 0 means never.
        chunk: tokens handled at once by causal performer attention.
        convolution: W, tokens that a short causal convolution spans on the queries, keys and values of self-attention
            (see `layers.ShortConvolution`); 0 for none.
        patch: sides of a patch along each axis, in pixels (in frames first, of a video), where patches are read in
            place of tokens: their embeddings are linear. Empty for tokens. channels: of a pixel.
    """

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid", "strict": True}

    form: Literal["decoder", "encoder", "encoder-decoder"] = "decoder"
    vocabulary: int = 256
    layers: int
    width: int
    heads: int
    feedforward: int
    attention: Literal["softmax", "performer"] = "softmax"
    scale: Literal["sqrt", "none"] = "sqrt"
    norm: Literal["pre", "post"] = "pre"
    embedding_norm: bool = False
    activation: Literal["relu", "gelu"] = "gelu"
    dropout: float = 0.0
    attention_dropout: float = 0.0
    tied: bool = True
    head: Literal["tokens", "masked", "class", "mean"] = "tokens"
    outputs: int = 0
    features: int = 64
    redraw: int = 0
    chunk: int = 64
    convolution: int = 0
    patch: tuple[int, ...] = ()
    channels: int = 1

    def __post_init__(self) -> None:
        for name in ("vocabulary", "layers", "width", "heads", "feedforward", "features", "chunk", "channels"):
            if not 1 <= getattr(self, name) <= LARGEST[name]:
                raise ConfigError(f"backbone.{name} = {getattr(self, name)}: must be from 1 to {LARGEST[name]:,}")
        for name in ("dropout", "attention_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"backbone.{name} = {getattr(self, name)}: must be at least 0 and less than 1")
        if self.width % self.heads:
            raise ConfigError(f"backbone.width = {self.width} is no multiple of backbone.heads = {self.heads}")
        if (self.outputs > 0) != (self.head in ("class", "mean")):
            raise ConfigError(f"backbone.outputs = {self.outputs}: head class or mean has at least 1, any other head 0")
        if self.head == "masked" and not self.tied:
            raise ConfigError("backbone.tied = False: the masked head's output layer is the embedding table")
        if self.convolution and not 2 <= self.convolution <= LARGEST["convolution"]:
            allowed = f"must be 0 (none) or from 2 to {LARGEST['convolution']} tokens"
            raise ConfigError(f"backbone.convolution = {self.convolution}: {allowed}")
        if self.redraw < 0:
            raise ConfigError(f"backbone.redraw = {self.redraw}: must be 0 (never) or a number of steps")
        if self.attention == "performer" and self.attention_dropout:
            raise ConfigError("backbone.attention_dropout: a Performer has no attention weights to drop")
        if not all(1 <= side <= LARGEST["patch"] for side in self.patch):
            raise ConfigError(
                f"backbone.patch = {list(self.patch)}: sides must be from 1 to {LARGEST['patch']:,} pixels"
            )
        if self.channels > 1 and not self.patch:
            raise ConfigError(
                f"backbone.channels = {self.channels}: only pixels have channels, and backbone.patch is []"
            )
        if self.patch and (self.form != "encoder" or self.head not in ("class", "mean")):
            raise ConfigError(
                f"backbone.patch = {list(self.patch)}: patches are read by an encoder with head class or mean"
            )

    @property
    def summary(self) -> int:
        """How many learned vectors stand before the patches of a row, to be read in their place."""
        return int(bool(self.patch) and self.head == "class")

    @property
    def patch_values(self) -> int:
        """P, the numbers in a patch."""
        return math.prod(self.patch) * self.channels

    def stack(self, max_length: int, *, causal: bool, axes: int = 1) -> Stack:
        """What an encoding is told of one stack of this backbone.

        Args:
            max_length: in tokens or patches. axes: how many coordinates a position has.
        """
        return Stack(
            layers=self.layers,
            heads=self.heads,
            width=self.width,
            head_width=self.width // self.heads,
            max_length=max_length + self.summary,
            causal=causal,
            axes=axes,
            scaled=self.scale == "sqrt",
        )

    def stacks(self, max_length: int, axes: int = 1) -> list[Stack]:
        """The stacks of this form: an encoder, a decoder, or one of each."""
        directions = {"decoder": [True], "encoder": [False], "encoder-decoder": [False, True]}[self.form]
        return [self.stack(max_length, causal=causal, axes=axes) for causal in directions]
