"""What all subjects of one comparison share: the size of the model and of its batch."""

from __future__ import annotations

from dataclasses import dataclass

from posenc.backbone.config import BackboneConfig


@dataclass(frozen=True, kw_only=True)
class Shape:
    """By default four layers, 256 wide: large enough that arithmetic counts, small enough for a CPU.

    Attributes:
        causal: a decoder; else an encoder, which reads both ways.
        rows, length: of a batch, in tokens. features: of a Performer; chunk: tokens that a causal one handles at once.
    """

    causal: bool = True
    layers: int = 4
    width: int = 256
    heads: int = 4
    feedforward: int = 1024
    vocabulary: int = 256
    features: int = 256
    chunk: int = 64
    rows: int = 2
    length: int = 512

    @property
    def head_width(self) -> int:
        return self.width // self.heads

    def backbone(self, attention: str, causal: bool) -> BackboneConfig:
        return BackboneConfig(
            form="decoder" if causal else "encoder",
            layers=self.layers,
            width=self.width,
            heads=self.heads,
            feedforward=self.feedforward,
            vocabulary=self.vocabulary,
            attention=attention,  # type: ignore[arg-type]
            features=self.features,
            chunk=self.chunk,
        )


SIZES = {
    "small": Shape(),
    # Devlin et al. 2019, section 3.
    "bert-base": Shape(
        causal=False, layers=12, width=768, heads=12, feedforward=3072, vocabulary=30_522, features=256, rows=32
    ),
}
"""By the names of `posenc bench --size`."""
