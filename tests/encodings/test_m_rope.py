"""M-RoPE, held against what the released code answers and against loops."""

from __future__ import annotations

import cmath

import pytest
import torch
from goldens import context_of, golden, halves, made, parameters, stack_of

from posenc.api import registry
from posenc.encodings.m_rope import MRope

pytestmark = pytest.mark.usefixtures("one_thread")
SPACE = {"axes": 3}
BOTH = pytest.mark.parametrize("text", ["m_rope", "m_rope_interleaved"])


@pytest.mark.parametrize(
    ("text", "file"), [("m_rope", "m_rope_qwen2_vl"), ("m_rope_interleaved", "m_rope_interleaved_qwen3_vl")]
)
def test_m_rope(text: str, file: str) -> None:
    """Their channels stand in halves. The rule gives their sections."""
    theirs, encoding = golden(file), made(text, head_width=16, stack=SPACE)
    assert isinstance(encoding, MRope)
    assert [encoding.dealt().count(axis) for axis in range(3)] == theirs["sections"].tolist()
    context = context_of(encoding, 9, coordinates=theirs["coordinates_thw"].T[None])
    queries = encoding.rotate_query(halves(theirs["queries"]), context.query_positions, context)
    keys = encoding.rotate_key(halves(theirs["keys"]), context.key_positions, context)
    torch.testing.assert_close(queries, halves(theirs["rotated_queries"]), atol=1e-12, rtol=0)
    torch.testing.assert_close(keys, halves(theirs["rotated_keys"]), atol=1e-12, rtol=0)


def test_the_rule_gives_the_sections_of_the_released_models() -> None:
    for text, sections in (("m_rope", [16, 24, 24]), ("m_rope_interleaved", [24, 20, 20])):
        encoding = made(text, head_width=128, stack=SPACE)
        assert isinstance(encoding, MRope)
        assert [encoding.dealt().count(axis) for axis in range(3)] == sections


@pytest.mark.parametrize(
    ("text", "axes"),
    [
        ("m_rope(base=77, row=1, column=3)", [0, 0, 1, 2, 2, 2]),
        ("m_rope_interleaved(base=77, row=2)", [0, 1, 2, 0, 1, 0]),
    ],
)
def test_it_is_its_formula(text: str, axes: list[int]) -> None:
    encoding = made(text, head_width=12, stack=SPACE)
    x, at = torch.randn(2, 2, 5, 12, dtype=torch.float64), torch.randint(0, 30, (2, 5, 3))
    context = context_of(encoding, 5, coordinates=at)
    found = encoding.rotate_key(x, context.key_positions, context)
    for row in range(2):
        for token in range(5):
            for pair in range(6):
                angle = at[row, token, axes[pair]].item() * 77 ** (-2 * pair / 12)
                wanted = complex(*x[row, 1, token, 2 * pair : 2 * pair + 2].tolist()) * cmath.exp(1j * angle)
                got = complex(*found[row, 1, token, 2 * pair : 2 * pair + 2].tolist())
                assert got == pytest.approx(wanted, abs=1e-11)


@BOTH
def test_text_is_turned_as_by_rope(text: str) -> None:
    encoding, rope = made(text, stack=SPACE), made("rope")
    x, one = torch.randn(1, 2, 9, 8, dtype=torch.float64), context_of(rope, 9)
    three = context_of(encoding, 9, coordinates=torch.arange(9)[None, :, None].expand(-1, -1, 3))
    found = encoding.rotate_query(x, three.query_positions, three)
    torch.testing.assert_close(found, rope.rotate_query(x, one.query_positions, one), atol=1e-14, rtol=0)


@pytest.mark.parametrize(
    ("text", "width", "said"),
    [
        ("m_rope(base=1)", 8, "base=1.0: must be more than 1"),
        ("m_rope", 4, "row=0, column=0 of 2 pairs: at least one pair for each"),
        ("m_rope(row=4, column=4)", 16, "row=4, column=4 of 8 pairs: at least one pair"),
        ("m_rope(row=-1)", 16, "row=-1, column=0: must be numbers of pairs"),
        ("m_rope_interleaved(row=4)", 16, "row=4, column=2 of 8 pairs: every third holds at most 3"),
        ("m_rope_interleaved(column=3)", 16, "of 8 pairs: every third holds at most 2"),
    ],
)
def test_what_cannot_be_is_refused(text: str, width: int, said: str) -> None:
    with pytest.raises(Exception, match=said):
        registry.create(text, stack_of(head_width=width, **SPACE))


@BOTH
def test_parameters(text: str) -> None:
    assert parameters(text, axes=3) == 0
    assert "reads 3 coordinates" in str(registry.create(text, stack_of(axes=2)).why_not("softmax"))
