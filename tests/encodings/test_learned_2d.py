"""Tables and sinusoids of row and column: loops, MAE's own formula, and what stands beyond a table."""

from __future__ import annotations

import math

import pytest
import torch
from goldens import context_of, made, parameters, stack_of
from torch import Tensor

from posenc.api import registry
from posenc.api.encoding import Encoding
from posenc.common.errors import NotPossibleError
from posenc.properties.subject import grid

pytestmark = pytest.mark.usefixtures("one_thread")
PLANE = {"axes": 2, "causal": False}


def added(encoding: Encoding, at: Tensor, **more: Tensor) -> Tensor:
    """What is added to embeddings of zero (B,L,D), at coordinates (B,L,2)."""
    x = torch.zeros(len(at), at.shape[1], encoding.stack.width, dtype=torch.float64)
    context = context_of(encoding, at.shape[1], coordinates=at, **more)
    return encoding.embed(x, context.query_positions, context)


def test_sinusoids_are_those_of_mae_in_another_order() -> None:
    """Theirs: sines, then cosines of the column, then of the row, at 10000^(-c/(D/4))."""
    at = torch.randint(0, 40, (1, 7, 2))
    found = added(made("sinusoidal_2d", stack=PLANE), at)
    for token, (row, column) in enumerate(at[0].tolist()):
        theirs = []
        for place in (column, row):
            angles = [place / 10000 ** (c / 4) for c in range(4)]
            theirs += [math.sin(angle) for angle in angles] + [math.cos(angle) for angle in angles]
        order = [8, 12, 9, 13, 10, 14, 11, 15, 0, 4, 1, 5, 2, 6, 3, 7]
        assert found[0, token].tolist() == pytest.approx([theirs[channel] for channel in order], abs=1e-12)


def test_options_of_the_sinusoids() -> None:
    found = added(made("sinusoidal_2d(base=7.0, scale=0.5)", stack=PLANE), torch.tensor([[[3, 5]]]))
    assert found[0, 0, 2].item() == pytest.approx(0.5 * math.sin(3 / 7 ** (1 / 4)), abs=1e-12)
    assert found[0, 0, 9].item() == pytest.approx(0.5 * math.cos(5), abs=1e-12)


def test_a_table_for_rows_and_one_for_columns() -> None:
    encoding, at = made("learned_2d", stack=PLANE), torch.randint(0, 8, (2, 7, 2))
    rows, columns = encoding.get_parameter("rows"), encoding.get_parameter("columns")
    assert rows.shape == columns.shape == (8, 8)
    found = added(encoding, at)
    for b in range(2):
        for token, (row, column) in enumerate(at[b].tolist()):
            wanted = [4 * value for value in (*rows[row].tolist(), *columns[column].tolist())]
            assert found[b, token].tolist() == pytest.approx(wanted, abs=1e-12)


def test_the_tables_hold_the_training_length() -> None:
    for length, side in ((1, 1), (48, 7), (49, 7), (50, 8), (196, 14), (197, 15)):
        encoding = registry.create("learned_2d", stack_of(**PLANE, max_length=length))
        assert encoding.max_length == side**2
    assert registry.create("learned_2d(size=3)", stack_of(**PLANE)).max_length == 9


@pytest.mark.parametrize("name", ["learned_2d", "sinusoidal_2d"])
def test_cls_tokens_get_nothing(name: str) -> None:
    encoding, at = made(name, stack=PLANE), grid(6, 2, 3)[None].clone()
    plain, cls = added(encoding, at), (torch.arange(6) == 2)[None]
    at[0, 2] = 999  # nobody looks there
    found = added(encoding, at, cls=cls)
    assert not found[0, 2].any() and plain[0, 2].any()
    assert torch.equal(found.masked_fill(cls[..., None], 0), plain.masked_fill(cls[..., None], 0))


def test_padding_may_stand_anywhere() -> None:
    encoding, at = made("learned_2d", stack=PLANE), grid(6, 2, 3)[None].clone()
    plain, mask = added(encoding, at), (torch.arange(6) < 4)[None]
    at[0, 4:] = -1
    assert torch.equal(added(encoding, at, mask=mask)[0, :4], plain[0, :4])


@pytest.mark.parametrize("place", [[0, 8], [8, 0], [-1, 0]])
def test_beyond_the_tables_there_is_no_answer(place: list[int]) -> None:
    encoding = made("learned_2d", stack=PLANE)
    with pytest.raises(NotPossibleError, match="rows and columns from 0 to 7, and coordinates from"):
        added(encoding, torch.tensor([[[1, 1], place]]))
    with pytest.raises(NotPossibleError, match="whole coordinates"):
        added(encoding, torch.tensor([[[0.5, 1.0]]]))
    with pytest.raises(NotPossibleError, match="it has 64 positions, and 65 were asked for"):
        added(encoding, grid(65, 2, 13)[None])


@pytest.mark.parametrize(
    ("text", "width", "said"),
    [
        ("learned_2d(size=-2)", 16, "size=-2: must be at least 1"),
        ("learned_2d", 15, "width 15 is odd"),
        ("sinusoidal_2d", 18, "width 18: must be a multiple of 4"),
        ("sinusoidal_2d(base=0.5)", 16, "base=0.5: must be more than 1"),
    ],
)
def test_what_cannot_be_is_refused(text: str, width: int, said: str) -> None:
    with pytest.raises(Exception, match=said):
        registry.create(text, stack_of(**PLANE, width=width))


@pytest.mark.parametrize(
    ("text", "count"), [("sinusoidal_2d", 0), ("learned_2d", 2 * 8 * 8), ("learned_2d(size=3)", 2 * 3 * 8)]
)
def test_parameters(text: str, count: int) -> None:
    assert parameters(text, axes=2) == count
