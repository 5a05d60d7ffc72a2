"""Linear attention. FORMS: how an encoding may enter (`linear_form`), and the kernel that serves it."""

from __future__ import annotations

from posenc.api.encoding import Encoding
from posenc.attention.linear.band import Band
from posenc.attention.linear.decay import Decay
from posenc.attention.linear.favor import Favor, FavorOutside

FORMS: dict[str, type[Favor]] = {"as_is": Favor, "inside": Favor, "outside": FavorOutside, "decay": Decay, "band": Band}
"""as_is: it touches neither queries nor keys. inside: it turns heads, before the features. outside: it turns features,
in the numerator alone. decay: what lies behind is multiplied by a factor at each token (`log_decay`). band: a bias
by distance that is constant from some distance on (`constant_from`)."""


def why_not(encoding: Encoding, features: int) -> str | None:
    """Why no kernel serves an encoding on so many features; None where one does."""
    if encoding.linear_form is None:
        return encoding.linear_reason
    if encoding.linear_form not in FORMS:
        return f"not possible: linear_form {encoding.linear_form!r} is none of {', '.join(FORMS)}"
    return encoding.why_not_features(features) if encoding.linear_form == "outside" else None
