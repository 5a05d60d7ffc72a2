"""One layer's attention as a backend gets it, and what of an encoding's hooks decides which backend can do it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from posenc.api.context import Context
from posenc.api.encoding import Encoding
from posenc.attention.interface import Memory
from posenc.attention.softmax.biases import score_table


@dataclass(frozen=True)
class Needs:
    """What attention has to do; `encoding` is None in cross-attention.

    Attributes:
        dropout: on attention weights. device: "cpu", "cuda". gradients: a backward pass will be asked for.
        coordinates: positions come with the batch.
    """

    encoding: Encoding | None
    dropout: float
    device: str
    gradients: bool = False
    coordinates: bool = False
    tokens: int = 0

    def overrides(self, hook: str) -> bool:
        return self.encoding is not None and self.encoding.overrides(hook)

    @property
    def by_distance(self) -> bool:
        """What it adds to scores has a form without a table of L x S."""
        return self.overrides("distance_bias") or self.overrides("clipped_vectors")

    @property
    def explicit(self) -> str:
        """What of it needs the scores of all pairs, or the weights, where others see them; nothing if nothing does."""
        if self.overrides("pair_scores"):
            return "it has scores of its own in place of queries times keys"
        if self.overrides("change_scores"):
            return "it changes the scores"
        if self.dropout:
            return "dropout falls on the weights"
        return "its values need the weights" if self.overrides("mix_values") else ""


@dataclass(kw_only=True)
class Call:
    """One layer's attention. Queries (B,H,L,any) and keys (B,H,S,any) are already rotated.

    Attributes:
        encoding, context, raw_queries, raw_keys: of self-attention; queries and keys as projected.
        memory: of cross-attention: the other stack's output, and what of it may be seen.
        given: what stands in the place of `table`, where there is neither.
    """

    queries: Tensor
    keys: Tensor
    values: Tensor
    scale: float
    causal: bool
    dropout: float = 0.0
    encoding: Encoding | None = None
    context: Context | None = None
    raw_queries: Tensor | None = None
    raw_keys: Tensor | None = None
    memory: Memory | None = None
    given: Tensor | None = None

    @property
    def seen(self) -> Tensor | None:
        """What is given in the place of `table`; of cross-attention laid out, (B,1,L,S) bool."""
        if self.memory is None:
            return self.given
        seen = self.memory.seen
        return None if seen is None else seen.expand(-1, 1, self.queries.shape[2], -1)

    def table(self) -> Tensor | None:
        """All that is added to the scaled scores (B or 1, H or 1, L, S), or in bool what may be seen.

        None means: nothing but the causal triangle where `causal`, which a backend makes by itself.
        """
        if self.encoding is None or self.context is None or self.raw_queries is None or self.raw_keys is None:
            return self.seen
        return score_table(self.encoding, self.raw_queries, self.raw_keys, self.context)

    def overrides(self, hook: str) -> bool:
        return self.encoding is not None and self.encoding.overrides(hook)
