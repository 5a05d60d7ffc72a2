"""Linear attention at long vectors: from which norms on float32 loses rows, and whether that is told."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from posenc.api.encoding import Context, Encoding
from posenc.attention.linear import kernel as linear
from posenc.attention.linear.division import counting
from posenc.properties.hooks import hook_context
from posenc.properties.subject import Outcome, Subject, parts_of

NORMS = (8, 30, 60, 120, 200)
HELD = 30
"""Up to this norm of queries and keys no row may be lost, but where they are widened afterwards."""
OFF = 0.01
LENGTH, FEATURES = 256, 256


class _Exact:
    """An encoding whose hooks on queries and keys work in float64: what they lose of it is another finding's."""

    def __init__(self, encoding: Encoding) -> None:
        self.encoding = encoding

    def __getattr__(self, name: str) -> Any:
        return getattr(self.encoding, name)

    def rotate_query(self, queries: Tensor, positions: Tensor, context: Context) -> Tensor:
        return self.encoding.rotate_query(queries.double(), positions, context).to(queries.dtype)

    def rotate_key(self, keys: Tensor, positions: Tensor, context: Context) -> Tensor:
        return self.encoding.rotate_key(keys.double(), positions, context).to(keys.dtype)


def _attended(encoding: Encoding, norm: float, dtype: torch.dtype, places: Tensor) -> Tensor:
    """Outputs (1,H,L,K) for queries and keys that have a norm before the encoding's hooks, in one precision.

    Args:
        places: where they stand, (L,) or (L,A).
    """
    generator = torch.Generator().manual_seed(0)
    shape = (3, 1, encoding.stack.heads, LENGTH, encoding.stack.head_width)
    queries, keys, values = torch.randn(shape, generator=generator).to(dtype)
    queries, keys = (norm * x / x.norm(dim=-1, keepdim=True) for x in (queries, keys))
    kernel = linear.kernel(encoding, causal=encoding.stack.causal, features=FEATURES, chunk=64)
    kernel.redraw(0)
    context = hook_context(encoding, places, queries=LENGTH)
    return kernel.attend(queries, keys, values, cast(Encoding, _Exact(encoding)), context)


@torch.no_grad()
def saturation(subject: Subject) -> Outcome:
    """Linear attention in float32 loses no row where queries and keys have norms up to 30; beyond, they are counted."""
    measured, wrong = [], []
    for stack, _, whole in subject.models(kind="performer", room=LENGTH):
        shares, encoding, places = [], parts_of(whole)[0], subject.places_of(LENGTH, LENGTH)
        for norm in NORMS:
            with counting() as found:
                low = _attended(encoding, norm, torch.float32, places).double()
            exact = _attended(encoding, norm, torch.float64, places)
            size = exact.norm(dim=-1)
            off = (low - exact).norm(dim=-1) > OFF * size.clamp_min(size.mean())  # equation 19 may give rows near 0
            share, counted = off.double().mean().item(), found.share or 0.0
            shares.append(f"{share:.1%} at {norm}")
            if share > 1.5 * counted + OFF:
                wrong.append(f"{stack} at norm {norm}: {share:.1%} are off, {counted:.1%} are counted")
            if share and norm <= HELD and encoding.linear_form != "wider":  # whose vectors are longer than they were
                wrong.append(f"{stack} at norm {norm}: {share:.1%} of rows are lost")
        measured.append(f"{stack} {', '.join(shares)}")
    if not measured:
        return "", "", "it serves no linear attention"
    return "told", f"rows off by over 1 % in float32, by norm: {'; '.join(measured)}", "; ".join(wrong)
