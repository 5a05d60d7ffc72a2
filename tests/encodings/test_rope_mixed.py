"""RoPE-Mixed, held against what the authors' code answers and against loops."""

from __future__ import annotations

import cmath
import math

import pytest
import torch
from goldens import context_of, golden, made, parameters, stack_of

from posenc.api import registry
from posenc.properties.subject import grid

pytestmark = pytest.mark.usefixtures("one_thread")
PLANE = {"axes": 2, "causal": False}


def test_rope_mixed() -> None:
    """Four columns, three rows. Theirs has x before y, and the layers before the heads."""
    theirs = golden("rope_mixed_vit")
    assert theirs["layer"] == 1
    encoding = made("rope_mixed", stack=PLANE, frequencies=theirs["frequencies"][:, 1].flip(0).transpose(0, 1))
    context = context_of(encoding, 12, coordinates=grid(12, 2, 4)[None])
    queries = encoding.rotate_query(theirs["queries"], context.query_positions, context)
    keys = encoding.rotate_key(theirs["keys"], context.key_positions, context)
    torch.testing.assert_close(queries, theirs["rotated_queries"].double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(keys, theirs["rotated_keys"].double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(queries @ keys.mT, theirs["dots"], atol=5e-6, rtol=0)


def test_their_frequencies_are_a_start_of_ours() -> None:
    """Magnitudes 10^(-4c/K) at one angle a head, and the same a quarter turn further."""
    ours = made("rope_mixed", stack=PLANE).get_parameter("frequencies")
    for start in (ours, golden("rope_mixed_vit")["frequencies"].permute(1, 2, 0, 3).flip(2).double()):
        for layer in start.tolist():
            for rows, columns in layer:
                phi = math.atan2(rows[0], columns[0])
                for pair in range(4):
                    magnitude, angle = 10 ** (-4 * (pair % 2) / 8), phi + (pair // 2) * math.pi / 2
                    assert columns[pair] == pytest.approx(magnitude * math.cos(angle), abs=1e-6)
                    assert rows[pair] == pytest.approx(magnitude * math.sin(angle), abs=1e-6)
    assert ours[..., 0].unique().numel() == 8, "each layer and head has an angle of its own"


def test_it_is_its_formula() -> None:
    f = torch.randn(3, 2, 4, dtype=torch.float64)
    encoding = made("rope_mixed", 3, stack=PLANE, frequencies=f)
    x, at = torch.randn(2, 3, 5, 8, dtype=torch.float64), torch.randint(0, 30, (2, 5, 2))
    context = context_of(encoding, 5, coordinates=at)
    found = encoding.rotate_query(x, context.query_positions, context)
    for row, head, token, pair in ((0, 0, 0, 0), (1, 2, 4, 3), (0, 1, 3, 2), (1, 0, 2, 1)):
        y, column = at[row, token].tolist()
        angle = y * f[head, 0, pair].item() + column * f[head, 1, pair].item()
        wanted = complex(*x[row, head, token, 2 * pair : 2 * pair + 2].tolist()) * cmath.exp(1j * angle)
        got = complex(*found[row, head, token, 2 * pair : 2 * pair + 2].tolist())
        assert got == pytest.approx(wanted, abs=1e-11)


def test_cls_tokens_are_not_turned() -> None:
    encoding, x = made("rope_mixed", stack=PLANE), torch.randn(1, 2, 6, 8, dtype=torch.float64)
    cls = (torch.arange(6) < 2)[None]
    context = context_of(encoding, 6, coordinates=grid(6, 2, 3)[None] + 1, cls=cls)
    found = encoding.rotate_key(x, context.key_positions, context)
    assert torch.equal((found == x).all(dim=(0, 1, 3)), cls[0])


def test_layers_differ() -> None:
    encoding, x = made("rope_mixed", stack=PLANE), torch.randn(1, 2, 6, 8, dtype=torch.float64)
    context = context_of(encoding, 6, coordinates=grid(6, 2, 3)[None])
    second = encoding.rotate_query(x, context.query_positions, context)
    context.layer = 0
    assert not torch.equal(encoding.rotate_query(x, context.query_positions, context), second)


@pytest.mark.parametrize(
    ("text", "width", "said"),
    [("rope_mixed(base=1)", 8, "base=1.0: must be more"), ("rope_mixed", 6, "heads of 6 channels")],
)
def test_what_cannot_be_is_refused(text: str, width: int, said: str) -> None:
    with pytest.raises(Exception, match=said):
        registry.create(text, stack_of(head_width=width, **PLANE))


def test_parameters() -> None:
    assert parameters("rope_mixed", axes=2) == 2 * 2 * 2 * 4
