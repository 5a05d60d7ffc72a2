"""RoPE's other frequencies, held against what the authors' own code answers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from goldens import golden, made

from posenc.encodings.rope import Rope

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("linear", "rope_linear(factor=4.0)"),
        ("yarn", "yarn(factor=4.0, original=512)"),
        ("yarn_options", "yarn(factor=8.0, original=256, fast=24.0, slow=2.0)"),
        ("llama3", "rope_llama3(factor=8.0, original=1024)"),
        ("proportional", "p_rope(p=0.25)"),
    ],
)
def test_frequencies_of_rope(kind: str, text: str) -> None:
    """At every length the same: none of these is "dynamic"."""
    theirs = golden("rope_frequencies")
    encoding = made(text, 2, head_width=64)
    assert isinstance(encoding, Rope)
    plain = made("rope", 2, head_width=64)
    for length in (256, 512, 1024, 2048, 8192):
        got = encoding.frequencies(64, torch.device("cpu"))
        torch.testing.assert_close(got.float(), theirs[f"{kind}_{length}_inv_freq"].float(), atol=0, rtol=2e-7)
        factor = theirs[f"{kind}_{length}_attention_factor"].item()
        assert encoding.score_scale == pytest.approx(plain.score_scale * factor**2)


def test_ntk_keeps_the_fastest_frequency_and_divides_the_slowest_by_its_factor() -> None:
    plain, scaled = (made(text, 2, head_width=64) for text in ("rope", "rope_ntk(factor=4.0)"))
    assert isinstance(plain, Rope) and isinstance(scaled, Rope)
    ratio = plain.frequencies(64, torch.device("cpu")) / scaled.frequencies(64, torch.device("cpu"))
    torch.testing.assert_close(ratio[[0, -1]], torch.tensor([1.0, 4.0], dtype=torch.float64))
    assert (ratio.diff() > 0).all()


def test_hope_keeps_what_turns_once_within_the_length() -> None:
    encoding = made("hope(length=100)", 2, head_width=64)
    assert isinstance(encoding, Rope)
    found = encoding.frequencies(64, torch.device("cpu"))
    for pair, theta in enumerate(found.tolist()):
        plain = 10000 ** (-2 * pair / 64)
        assert theta == (pytest.approx(plain) if plain * 100 >= 2 * np.pi else 0.0)
    assert 0 < (found > 0).sum() < 32
