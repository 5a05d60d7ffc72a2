"""Dynamic NTK and LongRoPE: transformers' frequencies at every length, and no trace of one length in the next."""

from __future__ import annotations

import ast
from typing import Any

import numpy as np
import pytest
import torch
from goldens import GOLDEN, context_of, golden, made
from torch import Tensor

from posenc.common.errors import PosencError
from posenc.encodings.rope_by_length import LongRope

pytestmark = pytest.mark.usefixtures("one_thread")


def options_of(kind: str) -> dict[str, Any]:
    with np.load(GOLDEN / "rope_frequencies.npz") as file:
        found: dict[str, Any] = ast.literal_eval(str(file[f"{kind}_options"]))
        return found


@pytest.mark.parametrize(
    ("kind", "text"),
    [("dynamic", "rope_dynamic(factor=4.0, original=2048)"), ("longrope", "longrope(factor=4.0, original=512)")],
)
def test_frequencies_at_every_length(kind: str, text: str) -> None:
    theirs, encoding = golden("rope_frequencies"), made(text, 2, head_width=64)
    if isinstance(encoding, LongRope):
        options = options_of("longrope")
        encoding.short_factors = torch.tensor(options["short_factor"], dtype=torch.float64)
        encoding.long_factors = torch.tensor(options["long_factor"], dtype=torch.float64)
    for length in (256, 512, 1024, 2048, 8192):
        by_length: Any = encoding
        found = by_length.by_length(torch.tensor(length))
        torch.testing.assert_close(found.float(), theirs[f"{kind}_{length}_inv_freq"].float(), atol=0, rtol=4e-7)
        factor = theirs[f"{kind}_{length}_attention_factor"].item()
        assert encoding.score_scale == pytest.approx(64**-0.5 * factor**2)


def turned(text: str, length: int, x: Tensor, **more: Any) -> Tensor:
    encoding = made(text, 2)
    context = context_of(encoding, length, **more)
    return encoding.rotate_query(x, context.query_positions, context)


@pytest.mark.parametrize("text", ["rope_dynamic(original=6)", "longrope(original=6)"])
def test_packed_and_padded_examples_are_turned_by_their_own_lengths(text: str) -> None:
    x = torch.randn(1, 2, 14, 8, dtype=torch.float64)
    long, short = turned(text, 10, x[:, :, :10]), turned(text, 4, x[:, :, 10:])
    segments = torch.tensor([[0] * 10 + [1] * 4])
    torch.testing.assert_close(turned(text, 14, x, segments=segments), torch.cat((long, short), dim=2))
    for mask in (segments == 0, segments == 1):
        wanted = long if mask[0, 0] else short
        torch.testing.assert_close(turned(text, 14, x, mask=mask)[:, :, mask[0]], wanted)
    plain = turned("rope", 4, x[:, :, 10:])
    torch.testing.assert_close(short, plain)
    assert (turned("rope", 10, x[:, :, :10]) - long).abs().max() > 1e-3


@pytest.mark.parametrize("text", ["rope_dynamic(factor=0.5)", "longrope(original=-1)", "longrope(original=1)"])
def test_options_without_meaning_are_refused(text: str) -> None:
    with pytest.raises(PosencError, match="must be"):
        made(text)
