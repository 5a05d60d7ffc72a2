"""Linear attention with a vector for each clipped distance: its quadratic form, causality, padding, gradients."""

from __future__ import annotations

from typing import Any

import linear_twins
import pytest
import torch
from linear_twins import HEADS, WIDTH, assert_no_later_token_is_read
from torch import Tensor

from posenc.api import registry
from posenc.api.stack import Stack
from posenc.attention.linear.vectors import vectors_attention

pytestmark = pytest.mark.usefixtures("one_thread")

BOTH = pytest.mark.parametrize("causal", [True, False], ids=["causal", "both ways"])
ERRORS = {(torch.float64, 2): 1e-12, (torch.float64, 30): 1e-9, (torch.float32, 2): 1e-5, (torch.float32, 30): 5e-3}


def drawn(length: int, norm: float, clip: int = 3, heads: int = HEADS) -> dict[str, Tensor]:
    x, generator = linear_twins.drawn(length, norm)
    tables = torch.randn(2, heads, 2 * clip + 1, WIDTH, generator=generator, dtype=torch.float64)
    return {**x, "by_key": tables[0], "by_value": tables[1]}


def attended(x: dict[str, Tensor], causal: bool, dtype: torch.dtype = torch.float64, **more: Any) -> Tensor:
    q, k, v, w, *tables = (
        x[name].to(dtype) for name in ("queries", "keys", "values", "features", "by_key", "by_value")
    )
    return vectors_attention(
        q, k, v, w, (tables[0], tables[1]), scale=WIDTH**-0.5, rows=linear_twins.rows(causal, **more)
    )


def twin(x: dict[str, Tensor], causal: bool, mask: Tensor | None = None) -> Tensor:
    """Pair by pair: each key with its distance's vector has features of its own."""
    clip, length = x["by_key"].shape[1] // 2, x["keys"].shape[2]
    index = torch.arange(length)
    rows = (index - index[:, None]).clamp(-clip, clip) + clip  # (L,S)

    def logs(y: Tensor) -> Tensor:
        y = y * WIDTH**-0.25
        return y @ x["features"].T - y.square().sum(-1, keepdim=True) / 2

    keys = x["keys"][:, :, None] + x["by_key"][:, rows]  # (B,H,L,S,K)
    weights = torch.logsumexp(logs(x["queries"])[:, :, :, None] + logs(keys), dim=-1)
    if causal:
        weights = weights.masked_fill(rows.new_ones(length, length).bool().triu(1), -torch.inf)
    if mask is not None:
        weights = weights.masked_fill(~mask[:, None, None], -torch.inf)
    values = x["values"][:, :, None] + x["by_value"][:, rows]
    return (weights.softmax(-1)[..., None] * values).sum(-2)


@BOTH
@pytest.mark.parametrize(("dtype", "norm"), ERRORS)
@pytest.mark.parametrize("clip", [1, 3, 16])
def test_it_is_its_quadratic_form(clip: int, causal: bool, dtype: torch.dtype, norm: int) -> None:
    for length, heads in ((1, HEADS), (2, 1), (7, HEADS), (25, HEADS)):
        x = drawn(length, norm, clip, heads)
        found, wanted = attended(x, causal, dtype, chunk=8), twin(x, causal)
        assert (found.double() - wanted).abs().max() / wanted.abs().max() < ERRORS[dtype, norm], length


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("length", [2, 63, 64, 65, 1000])
def test_a_later_token_moves_no_bit_of_an_earlier_output(dtype: torch.dtype, length: int) -> None:
    assert_no_later_token_is_read(lambda x: attended(x, True, dtype), drawn(length, 8.0))


@BOTH
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_is_out_of_numerator_and_normaliser(causal: bool, side: str) -> None:
    x = drawn(30, 3.0)
    mask = torch.ones(2, 30, dtype=torch.bool)
    mask[:, slice(0, 11) if side == "left" else slice(19, 30)] = False
    found = attended(x, causal, mask=mask, chunk=8)[:, :, mask[0]]
    alone = {name: y[:, :, mask[0]] if name in ("queries", "keys", "values") else y for name, y in x.items()}
    torch.testing.assert_close(found, attended(alone, causal, chunk=8), atol=1e-12, rtol=0)


@BOTH
def test_gradients_are_those_of_the_quadratic_form(causal: bool) -> None:
    names, found = ("queries", "keys", "values", "by_key", "by_value"), []
    for form in (lambda x: attended(x, causal, chunk=8), lambda x: twin(x, causal)):
        x = drawn(21, 2.0)
        for name in names:
            x[name].requires_grad_()
        found.append(torch.autograd.grad(form(x).sin().sum(), [x[name] for name in names]))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-11, rtol=0)


def test_a_wide_clip_is_refused_for_its_cost() -> None:
    stack = Stack(layers=1, heads=2, width=16, head_width=8, max_length=64, causal=True)
    for text, why in (("shaw", None), ("nezha(clip=8)", None), ("nezha", "clip=64"), ("shaw+nezha(clip=4)", "several")):
        reason = registry.create(text, stack).why_not("performer")
        assert reason is None if why is None else why in (reason or ""), text
