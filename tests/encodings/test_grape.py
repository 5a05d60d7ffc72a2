"""GRAPE-M and GRAPE-A, held against what the authors' own code answers and against loops."""

from __future__ import annotations

import math

import pytest
import torch
from goldens import close, context_of, golden, halves, made, parameters

from posenc.encodings.alibi import slopes

pytestmark = pytest.mark.usefixtures("one_thread")


def test_grape_m() -> None:
    """Their channels stand in halves, and their parameter times a scale."""
    theirs = golden("grape_m")
    encoding = made("grape_m(per_head=True)", 2, logs=theirs["log_freq"] / theirs["log_freq_scale"])
    context = context_of(encoding, 11)
    queries = encoding.rotate_query(halves(theirs["queries"]), context.query_positions, context)
    keys = encoding.rotate_key(halves(theirs["keys"]), context.key_positions, context)
    torch.testing.assert_close(queries, halves(theirs["rotated_queries"]), atol=1e-12, rtol=0)
    torch.testing.assert_close(queries @ keys.transpose(-1, -2), theirs["dots"], atol=1e-12, rtol=0)


def test_grape_m_starts_as_rope_turned_back() -> None:
    grape, rope = made("grape_m(base=500.0)", 2), made("rope(base=500.0)", 2)
    x = torch.randn(1, 2, 9, 8, dtype=torch.float64)
    one, other = context_of(grape, 9), context_of(rope, 9)
    turned = grape.rotate_query(x, one.query_positions, one)
    back = rope.rotate_query(x, -other.query_positions, other)
    torch.testing.assert_close(turned, back, atol=1e-12, rtol=0)


def test_grape_a() -> None:
    theirs = golden("grape_a_query_key_gated")
    torch.testing.assert_close(slopes(2).double(), theirs["slopes"], atol=1e-7, rtol=0)
    encoding = made("grape_a", 2, u=theirs["u"], v=theirs["v"], omega=theirs["omega"])
    bias = encoding.score_bias(theirs["queries"], theirs["keys"], context_of(encoding, 11))
    close(bias, theirs["bias"], 1e-12)


def test_grape_a_is_its_formula() -> None:
    encoding = made("grape_a", 3, omega=torch.tensor([0.3, -1.0, 2.0]))
    q, k = torch.randn(2, 2, 3, 7, 8, dtype=torch.float64).unbind()
    found = encoding.score_bias(q, k, context_of(encoding, 7))
    u, v, omega = (encoding.get_parameter(name)[1].tolist() for name in ("u", "v", "omega"))

    def soft(x: float) -> float:
        return math.log1p(math.exp(x))

    def gate(direction: list[float], x: list[float]) -> float:
        size = math.sqrt(sum(a * a for a in direction))
        return soft(sum(a * b for a, b in zip(direction, x, strict=True)) / size / math.sqrt(8))

    for h, i in ((0, 6), (1, 3), (2, 5)):
        for j in range(i + 1):
            gates = gate(v[h], q[1, h, i].tolist()) + gate(u[h], k[1, h, j].tolist())
            wanted = -(i - j) * slopes(3)[h].item() * soft(omega[h]) * gates
            assert found[1, h, i, j].item() == pytest.approx(wanted, abs=1e-10)


@pytest.mark.parametrize(
    ("text", "count"),
    [("grape_m", 2 * 4), ("grape_m(per_head=True)", 2 * 2 * 4), ("grape_a", 2 * 2 * (2 * 8 + 1))],
)
def test_parameters(text: str, count: int) -> None:
    assert parameters(text) == count
