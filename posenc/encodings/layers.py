"""Different encodings in different layers (RNoPE, SmolLM3)."""

from __future__ import annotations

from dataclasses import replace

from posenc.api.composite import AtLayer, Several
from posenc.api.encoding import Encoding
from posenc.api.spec import Nested
from posenc.api.stack import Stack
from posenc.common.errors import NotPossibleError


class ByLayer(Several):
    """Another encoding in every `every`-th layer: `layers(rope, none, every=4)` (RNoPE, Yang et al. 2025; SmolLM3).

    Layers are counted from 1: with `every=4` the second encoding serves layers 4, 8, 12 and the first all others. Each
    serves a stack of as many layers as it has, so none owns parameters that no layer reads. What enters embeddings or
    sets positions serves all layers, and stands outside: `sinusoidal+layers(t5, none)`.

    Options:
        every: of so many layers the last has the second encoding.
        window: how many keys back a query of the first encoding's layers sees, itself among them; 0 for all (RNoPE
            has a sliding window in its rotary layers).
    """

    name = "layers"
    title = "one encoding in some layers, another in every n-th: layers(rope, none, every=4)"
    paper = "Yang et al. 2025, arXiv:2501.18795, section 3"
    formula = "one in some layers, another in every n-th"
    axes = None

    def __init__(self, stack: Stack, first: Nested, second: Nested, *, every: int = 4, window: int = 0) -> None:
        if every < 2:
            raise ValueError(f"every={every}: must be at least 2")
        if window < 0:
            raise ValueError(f"window={window}: must be at least 1, or 0 for all keys")
        if stack.layers < every:
            raise ValueError(f"every={every} of {stack.layers} layers: the second encoding would have none")
        seconds = [(n + 1) % every == 0 for n in range(stack.layers)]
        both = (
            first(replace(stack, layers=seconds.count(False))),
            second(replace(stack, layers=seconds.count(True))),
        )
        for hook, does in (("positions", "sets positions"), ("embed", "enters embeddings")):
            if any(part.overrides(hook) for part in both):
                raise NotPossibleError(f"not possible: one of layers(...) {does}, which serves all layers: use +")
        if any(part.at(0) is not part for part in both):
            raise NotPossibleError("not possible: layers(...) inside layers(...)")
        super().__init__(stack, both)
        self.first, self.second = both
        forms = {part.linear_form for part in both} - {"as_is"}
        reason = next((part.linear_reason for part in both if part.linear_form is None), "")
        if window and not reason:
            reason = "not built: a sliding window in linear attention"
        self._declare(linear_form=None if reason else min(map(str, forms), default="as_is"), linear_reason=reason)
        self._at = []
        for layer, is_second in enumerate(seconds):
            own = seconds[:layer].count(is_second)
            self._at.append(AtLayer(both[is_second], own, None if is_second or not window else window))

    def at(self, layer: int) -> Encoding:
        return self._at[layer]
