"""DeBERTa's three terms, held against transformers' and against loops."""

from __future__ import annotations

import pytest
import torch
from goldens import context_of, golden, made, parameters

from posenc.common.errors import ConfigError

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("causal", [True, False])
def test_deberta(causal: bool) -> None:
    """A table that is the unit matrix makes the projections the projected tables."""
    theirs = golden("deberta")
    encoding = made("deberta(clip=4)", 2, stack={"causal": causal})
    with torch.no_grad():
        encoding.get_parameter("table").copy_(torch.eye(8, 16))
        for name, tables in (("key_weight", "position_keys"), ("query_weight", "position_queries")):
            weight = torch.zeros(16, 16, dtype=torch.float64)
            weight[:, :8] = theirs[tables].transpose(1, 2).flatten(0, 1)
            encoding.get_parameter(name)[1].copy_(weight)
    q, k = theirs["queries"].double(), theirs["keys"].double()
    scores = encoding.score_bias(q, k, context_of(encoding, 11)) + q @ k.transpose(-1, -2) * encoding.score_scale
    assert encoding.score_scale == pytest.approx((3 * 8) ** -0.5)
    wanted = theirs["scores"].double()
    if causal:  # what stands at pairs that no query sees is nobody's
        scores, wanted = scores.tril(), wanted.tril()
    torch.testing.assert_close(scores, wanted, atol=1e-6, rtol=0)


def test_rows_longer_and_shorter_than_the_clip_read_the_same_table() -> None:
    encoding = made("deberta(clip=6)", 2, stack={"causal": False})
    q, k = torch.randn(2, 1, 2, 20, 8, dtype=torch.float64).unbind()
    long = encoding.score_bias(q, k, context_of(encoding, 20))
    short = encoding.score_bias(q[:, :, :4], k[:, :, :4], context_of(encoding, 4))
    torch.testing.assert_close(long[:, :, :4, :4], short, atol=1e-12, rtol=0)
    table = encoding.get_parameter("table")
    pk, pq = (table @ encoding.get_parameter(name)[1].T for name in ("key_weight", "query_weight"))
    for i, j in ((19, 0), (5, 5), (0, 19), (7, 2)):
        c = min(max(i - j + 6, 0), 11)
        wanted = (q[0, 1, i] @ pk[c, 8:] + k[0, 1, j] @ pq[c, 8:]) / 24**0.5
        assert long[0, 1, i, j].item() == pytest.approx(wanted.item(), abs=1e-12)


def test_parameters_and_bad_options() -> None:
    assert parameters("deberta(clip=4)") == 8 * 16 + 2 * 2 * 16 * 16
    with pytest.raises(ConfigError, match="clip=0: must be at least 1"):
        made("deberta(clip=0)")
