"""Axial RoPE, held against what the authors' and timm's code answer and against loops."""

from __future__ import annotations

import cmath
import math

import pytest
import torch
from goldens import context_of, golden, made, parameters, stack_of
from torch import Tensor

from posenc.api import registry
from posenc.api.encoding import Encoding
from posenc.properties.subject import grid

pytestmark = pytest.mark.usefixtures("one_thread")
PLANE = {"axes": 2, "causal": False}


def turned(encoding: Encoding, x: Tensor, coordinates: Tensor, cls: Tensor | None = None) -> tuple[Tensor, Tensor]:
    context = context_of(encoding, x.shape[2], coordinates=coordinates[None], cls=cls)
    rotated = encoding.rotate_query(x, context.query_positions, context)
    return rotated, encoding.rotate_key(x, context.key_positions, context)


def test_axial_rope() -> None:
    """Four columns, three rows; theirs counts tokens row by row."""
    theirs, encoding = golden("axial_rope_vit"), made("axial_rope", stack=PLANE)
    queries, _ = turned(encoding, theirs["queries"], grid(12, 2, 4))
    _, keys = turned(encoding, theirs["keys"], grid(12, 2, 4))
    torch.testing.assert_close(queries, theirs["rotated_queries"].double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(keys, theirs["rotated_keys"].double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(queries @ keys.mT, theirs["dots"], atol=5e-6, rtol=0)


def test_timms_rows_come_first() -> None:
    theirs = golden("axial_timm_temperature")
    found, _ = turned(made("axial_rope(rows_first=True)", stack=PLANE), theirs["queries"], grid(12, 2, 4))
    torch.testing.assert_close(found, theirs["rotated_queries"].double(), atol=1e-6, rtol=0)


def test_timms_spectrum_in_pixels() -> None:
    """Their angles, up to 352, are float32: off by 1e-5 each. Their axes of 3 and 4 are stretched to one of 5 here."""
    theirs, encoding = golden("axial_timm_pixels"), made("axial_rope(rows_first=True, pixels=5)", stack=PLANE)
    found, _ = turned(encoding, theirs["queries"], grid(12, 2, 4) * torch.tensor([4 / 2, 4 / 3], dtype=torch.float64))
    torch.testing.assert_close(found, theirs["rotated_queries"].double(), atol=1e-4, rtol=0)


@pytest.mark.parametrize("text", ["axial_rope", "axial_rope(base=37.0, rows_first=True)", "axial_rope(pixels=7)"])
def test_it_is_its_formula(text: str) -> None:
    encoding = made(text, head_width=12, stack=PLANE)
    x, at = torch.randn(1, 2, 5, 12, dtype=torch.float64), torch.randint(0, 30, (5, 2))
    found, keys = turned(encoding, x, at)
    assert torch.equal(found, keys)
    for token, (row, column) in enumerate(at.tolist()):
        for pair in range(6):
            place, c = ((column, row) if "rows_first" not in text else (row, column))[pair // 3], pair % 3
            if "pixels" in text:
                angle = (2 * place / 6 - 1) * math.pi * 2 ** (c / 2 * math.log2(112))
            else:
                angle = place * (37.0 if "37" in text else 100.0) ** (-4 * c / 12)
            wanted = complex(*x[0, 1, token, 2 * pair : 2 * pair + 2].tolist()) * cmath.exp(1j * angle)
            assert complex(*found[0, 1, token, 2 * pair : 2 * pair + 2].tolist()) == pytest.approx(wanted, abs=1e-11)


def test_cls_tokens_are_not_turned() -> None:
    encoding, x = made("axial_rope", stack=PLANE), torch.randn(2, 2, 6, 8, dtype=torch.float64)
    cls = torch.zeros(2, 6, dtype=torch.bool)
    cls[0, 0] = cls[1, 2] = True
    plain, _ = turned(encoding, x, grid(6, 2, 3) + 1)
    for found in turned(encoding, x, grid(6, 2, 3) + 1, cls):
        same = (found == x).all(dim=(1, 3))
        assert torch.equal(same, cls)
        assert torch.equal(found.masked_fill(cls[:, None, :, None], 0), plain.masked_fill(cls[:, None, :, None], 0))


@pytest.mark.parametrize(
    ("text", "width", "said"),
    [
        ("axial_rope(base=1.0)", 8, "base=1.0: must be more than 1"),
        ("axial_rope(pixels=1)", 8, "pixels=1: must be at least 2"),
        ("axial_rope(pixels=-3)", 8, "pixels=-3: must be at least 2"),
        ("axial_rope", 6, "heads of 6 channels: must be a multiple of 4"),
    ],
)
def test_what_cannot_be_is_refused(text: str, width: int, said: str) -> None:
    with pytest.raises(Exception, match=said):
        registry.create(text, stack_of(head_width=width, **PLANE))


SPACE = {"axes": 3, "causal": False}


@pytest.mark.parametrize(("text", "base"), [("axial_rope_3d", 10000.0), ("axial_rope_3d(base=37)", 37.0)])
@pytest.mark.parametrize("width", [6, 12, 14, 16])
def test_three_axes_turn_a_third_of_the_pairs_each(text: str, base: float, width: int) -> None:
    encoding, count = made(text, head_width=width, stack=SPACE), width // 6
    x, at = torch.randn(1, 2, 5, width, dtype=torch.float64), torch.randint(0, 30, (5, 3))
    found, keys = turned(encoding, x, at)
    assert torch.equal(found, keys)
    for token, places in enumerate(at.tolist()):
        for pair in range(width // 2):
            angle = places[pair // count] * base ** (-(pair % count) / count) if pair < 3 * count else 0.0
            wanted = complex(*x[0, 1, token, 2 * pair : 2 * pair + 2].tolist()) * cmath.exp(1j * angle)
            assert complex(*found[0, 1, token, 2 * pair : 2 * pair + 2].tolist()) == pytest.approx(wanted, abs=1e-11)


@pytest.mark.parametrize(
    ("text", "width", "said"),
    [
        ("axial_rope_3d(base=1.0)", 8, "base=1.0: must be more than 1"),
        ("axial_rope_3d", 4, "heads of 4 channels: must be an even number"),
        ("axial_rope_3d", 9, "heads of 9 channels: must be an even number"),
    ],
)
def test_what_cannot_be_on_three_axes_is_refused(text: str, width: int, said: str) -> None:
    with pytest.raises(Exception, match=said):
        registry.create(text, stack_of(head_width=width, **SPACE))


def test_parameters() -> None:
    assert parameters("axial_rope_3d", axes=3) == 0
    assert parameters("axial_rope", axes=2) == 0
    assert "reads 2 coordinates" in str(registry.create("axial_rope", stack_of()).why_not("softmax"))
