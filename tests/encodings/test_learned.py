"""The learned table: what it adds, how it starts, where it ends."""

from __future__ import annotations

import pytest
import torch
from by_hand import context_of, made, randn, stack_of, started

from posenc.common.errors import NotPossibleError
from posenc.encodings.learned import Learned

pytestmark = pytest.mark.usefixtures("one_thread")


def test_learned_adds_the_row_of_each_position_times_the_root_of_the_width() -> None:
    encoding = started(Learned(stack_of()))
    assert encoding.table.shape == (64, 16)
    x = randn(2, 6, 16)
    mask = torch.tensor([[1] * 6, [0, 0, 1, 1, 1, 1]]).bool()
    context = context_of(encoding, 6, mask=mask)
    out = encoding.embed(x, context.query_positions, context)
    for b, first in ((0, 0), (1, 2)):
        for t in range(first, 6):
            torch.testing.assert_close(out[b, t], x[b, t] + 4.0 * encoding.table[t - first], atol=1e-12, rtol=0)


def test_learned_starts_with_a_standard_deviation_of_one_over_the_root_of_the_width() -> None:
    encoding = started(Learned(stack_of(max_length=4096)))
    assert encoding.table.std().item() == pytest.approx(0.25, rel=0.02)


@pytest.mark.parametrize("text", ["learned", "learned+rope", "rope+learned"])
def test_learned_has_no_answer_beyond_its_table(text: str) -> None:
    encoding = made(text, max_length=10)
    assert encoding.why_not_at(10) is None
    context_of(encoding, 10)
    assert "not possible" in (encoding.why_not_at(11) or "")
    with pytest.raises(NotPossibleError, match=r"10 positions.*11"):
        context_of(encoding, 11)
    with pytest.raises(NotPossibleError):
        context_of(encoding, keys=11, queries=1)
