"""FORMS: how an encoding may enter linear attention (`linear_form`), and the kernel that serves it."""

from __future__ import annotations

from posenc.api.encoding import Encoding
from posenc.attention.linear.band import Band
from posenc.attention.linear.decay import Decay
from posenc.attention.linear.favor import Favor
from posenc.attention.linear.outside import Moved, Outside
from posenc.attention.linear.relu import Relu
from posenc.attention.linear.vectors import Vectors
from posenc.attention.linear.wider import Wider

FORMS: dict[str, type[Favor]] = {
    "as_is": Favor, "inside": Favor, "outside": Outside, "moved": Moved, "decay": Decay, "band": Band,
    "vectors": Vectors, "wider": Wider, "relu": Relu,
}  # fmt: skip
"""as_is: it touches neither queries nor keys. inside: it turns heads, before the features. outside: it turns features,
in the numerator alone. moved: it moves features about, in numerator and normaliser, which may decay. decay: what lies
behind is multiplied by a factor at each token (`log_decay`). band: a bias by distance that is constant from some
distance on (`constant_from`). vectors: one for each clipped distance, added to keys and values (`clipped_vectors`).
wider: channels of position stand beside those of queries and keys (`linear_width`, `position_vectors`). relu: no random
features, but relu(q).relu(k) times the product of two vectors of position."""


def why_not(encoding: Encoding, features: int) -> str | None:
    """Why no kernel serves an encoding on so many features; None where one does."""
    if encoding.linear_form is None:
        return encoding.linear_reason
    if encoding.linear_form not in FORMS:
        return f"not possible: linear_form {encoding.linear_form!r} is none of {', '.join(FORMS)}"
    return encoding.why_not_features(features)


def kernel(encoding: Encoding, *, causal: bool, features: int, chunk: int) -> Favor:
    """The kernel that serves an encoding: ask `why_not` first. Its features are not drawn yet (`redraw`)."""
    encoding.expect_features(features)
    form = FORMS[encoding.linear_form or ""]
    return form(causal=causal, width=encoding.linear_width, features=features, chunk=chunk)
