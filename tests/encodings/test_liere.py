"""LieRE, held against what the authors' code answers and against a power series in loops."""

from __future__ import annotations

import pytest
import torch
from goldens import context_of, exponential, golden, made, matrices, parameters, stack_of

from posenc.api import registry
from posenc.properties.subject import grid

pytestmark = pytest.mark.usefixtures("one_thread")
PLANE = {"axes": 2, "causal": False}


@pytest.mark.parametrize("layer", [0, 1])
def test_liere(layer: int) -> None:
    """A grid of 4 times 3, from 0 to 1 along each axis, behind a CLS token; their code is float32 in part."""
    theirs = golden("liere")
    above = torch.triu_indices(8, 8, 1)
    upper = theirs["raw"][:, layer, :, above[0], above[1]]  # (axes, heads, 28)
    encoding = made("liere(size=2)", stack=PLANE, upper=upper.transpose(0, 1)[:, :, None])
    places = grid(12, 2, 3) / torch.tensor([3.0, 2.0], dtype=torch.float64)
    cls = (torch.arange(13) == 0)[None]
    found = matrices(encoding, torch.cat((torch.full((1, 2), 0.7), places)), cls)
    torch.testing.assert_close(found.transpose(0, 1), theirs["rotations"][:, layer], atol=1e-6, rtol=0)
    assert torch.equal(found[:, 0], torch.eye(8, dtype=torch.float64).expand(2, -1, -1))


@pytest.mark.parametrize(("text", "axes"), [("liere(block=3, size=5)", 2), ("liere(size=4)", 3)])
def test_it_is_its_formula(text: str, axes: int) -> None:
    """With two axes and with three."""
    block, size = (3, 5) if axes == 2 else (6, 4)
    encoding = made(text, head_width=6, stack={"axes": axes})
    upper = encoding.get_parameter("upper")[1].tolist()
    at = torch.randint(0, 6, (3, axes))
    found = matrices(encoding, at)
    for head in range(2):
        for token, place in enumerate(at.tolist()):
            whole = torch.zeros(6, 6, dtype=torch.float64)
            for b in range(6 // block):
                for axis, coordinate in enumerate(place):
                    index = 0
                    for i in range(block):
                        for j in range(i + 1, block):
                            value = upper[head][axis][b][index] * coordinate / (size - 1)
                            whole[b * block + i, b * block + j] += value
                            whole[b * block + j, b * block + i] -= value
                            index += 1
            torch.testing.assert_close(found[head, token], exponential(whole), atol=1e-10, rtol=0)


def test_it_is_not_relative() -> None:
    """The generators of two axes do not commute, those of one do."""
    encoding = made("liere", stack=PLANE)
    one, other = (matrices(encoding, grid(9, 2, 3) + shift)[0] for shift in (0, torch.tensor([2, 0])))
    apart = one[0].mT @ one[4] - other[0].mT @ other[4]
    along = one[0].mT @ one[3] - other[0].mT @ other[3]
    assert apart.abs().max() > 0.1 and along.abs().max() < 1e-10


def test_rows_with_coordinates_of_their_own() -> None:
    encoding, x = made("liere", stack=PLANE), torch.randn(2, 2, 4, 8, dtype=torch.float64)
    at = torch.stack((grid(4, 2, 2), grid(4, 2, 3)))
    both = context_of(encoding, 4, coordinates=at)
    found = encoding.rotate_key(x, both.key_positions, both)
    for row in range(2):
        one = context_of(encoding, 4, coordinates=at[row : row + 1])
        alone = encoding.rotate_key(x[row : row + 1], one.key_positions, one)
        torch.testing.assert_close(found[row : row + 1], alone, atol=1e-13, rtol=0)


def test_it_starts_uniform_from_0_to_2_pi() -> None:
    start = made("liere", 8, head_width=16, stack=PLANE).get_parameter("upper")
    assert start.min() >= 0 and start.max() <= 2 * torch.pi
    assert start.mean().item() == pytest.approx(torch.pi, abs=0.15)
    assert start.std().item() == pytest.approx(2 * torch.pi / 12**0.5, abs=0.1)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("liere(block=3)", "block=3 in heads of 8: must be a divisor"),
        ("liere(block=-8)", "block=-8 in heads of 8: must be a divisor"),
        ("liere(size=1)", "size=1: must be at least 2"),
    ],
)
def test_what_cannot_be_is_refused(text: str, said: str) -> None:
    with pytest.raises(Exception, match=said):
        registry.create(text, stack_of(**PLANE))


def test_parameters() -> None:
    assert parameters("liere", axes=2) == 2 * 2 * 2 * 28
    assert parameters("liere(block=4)", axes=3) == 2 * 2 * 3 * 2 * 6
    assert "reads 2 coordinates" in str(registry.create("liere", stack_of()).why_not("softmax"))
