"""ComRoPE-AP and -LD, held against what the authors' code answers and against a power series in loops."""

from __future__ import annotations

import pytest
import torch
from goldens import exponential, golden, made, matrices, parameters, stack_of

from posenc.api import registry
from posenc.properties.subject import grid

pytestmark = pytest.mark.usefixtures("one_thread")
PLANE = {"axes": 2, "causal": False}
BOTH = pytest.mark.parametrize("name", ["comrope_ap", "comrope_ld"])


@BOTH
def test_comrope(name: str) -> None:
    """Their coordinates, from 0 to 1, are of grids of 8 here."""
    theirs = golden(name)
    values = {"matrices": theirs["freqs"][:, 0]}
    if "multiplier" in theirs:
        values["multiples"] = theirs["multiplier"][0, :, :, 0, 0]
    encoding = made(f"{name}(block=4, size=8)", stack=PLANE, **values)
    found = matrices(encoding, theirs["coordinates"] * 8 - 0.5, hook="rotate_key")
    torch.testing.assert_close(found.transpose(0, 1), theirs["rotations"], atol=1e-12, rtol=0)


@BOTH
@pytest.mark.parametrize("axes", [2, 3])
def test_it_is_its_formula(name: str, axes: int) -> None:
    encoding = made(f"{name}(block=2, size=5)", head_width=12, stack={"axes": axes})
    free = encoding.get_parameter("matrices")[1]
    at = torch.randint(0, 6, (3, axes))
    found = matrices(encoding, at, hook="rotate_key")
    for head in range(2):
        for token, place in enumerate(at.tolist()):
            whole = torch.zeros(12, 12, dtype=torch.float64)
            for b in range(6):
                t = (place[b % axes] + 0.5) / 5
                if name == "comrope_ld":
                    m = encoding.get_parameter("multiples")[1]
                    t = sum((place[axis] + 0.5) / 5 * m[axis, b].item() for axis in range(axes))
                for i in range(2):
                    for j in range(2):
                        whole[2 * b + i, 2 * b + j] = t * (free[head, b, i, j] - free[head, b, j, i]).item()
            torch.testing.assert_close(found[head, token], exponential(whole), atol=1e-10, rtol=0)


@BOTH
def test_it_is_relative(name: str) -> None:
    encoding = made(name, stack=PLANE)
    one, other = (
        matrices(encoding, grid(9, 2, 3) + shift, hook="rotate_key")[0] for shift in (0, torch.tensor([2, 11]))
    )
    torch.testing.assert_close(one[1].mT @ one[6], other[1].mT @ other[6], atol=1e-11, rtol=0)
    assert (one[1].mT @ one[6] - other[1].mT @ other[7]).abs().max() > 0.01


@BOTH
def test_cls_tokens_stand_in_the_middle(name: str) -> None:
    """Of a grid of 4: at 1.5 on each axis, wherever the batch says that they stand."""
    encoding = made(f"{name}(size=4)", stack=PLANE)
    at, cls = torch.tensor([[99.0, -7.0], [1.5, 1.5], [1.0, 2.0]]), torch.tensor([[True, False, False]])
    found = matrices(encoding, at, cls, hook="rotate_key")
    assert torch.equal(found[:, 0], found[:, 1])
    assert (found[:, 0] - found[:, 2]).abs().max() > 0.01


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("comrope_ap(block=8)", "block=8: 1 blocks in a head, which must be a multiple of 2"),
        ("comrope_ld(block=3)", "block=3 in heads of 8: must be a divisor"),
        ("comrope_ld(block=1)", "block=1 in heads of 8: must be a divisor"),
        ("comrope_ap(size=1)", "size=1: must be at least 2"),
    ],
)
def test_what_cannot_be_is_refused(text: str, said: str) -> None:
    with pytest.raises(Exception, match=said):
        registry.create(text, stack_of(**PLANE))


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("comrope_ap", 2 * 2 * 2 * 16),
        ("comrope_ap(block=2)", 2 * 2 * 4 * 4),
        ("comrope_ld", 2 * 2 * 2 * 16 + 2 * 2 * 2),
        ("comrope_ld(block=8)", 2 * 2 * 64 + 2 * 2),
    ],
)
def test_parameters(text: str, count: int) -> None:
    assert parameters(text, axes=2) == count
