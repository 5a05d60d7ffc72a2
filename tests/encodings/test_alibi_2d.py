"""ALiBi and Kerple in the plane, held against loops."""

from __future__ import annotations

import math

import pytest
import torch
from goldens import context_of, made, parameters, stack_of
from torch import Tensor

from posenc.api import registry
from posenc.api.encoding import Encoding
from posenc.common.errors import ConfigError
from posenc.properties.subject import grid

pytestmark = pytest.mark.usefixtures("one_thread")
PLANE = {"axes": 2, "causal": False}


def bias_of(encoding: Encoding, at: Tensor, cls: Tensor | None = None, dtype: torch.dtype = torch.float64) -> Tensor:
    heads, width = encoding.stack.heads, encoding.stack.head_width
    x = torch.zeros(len(at), heads, at.shape[1], width, dtype=dtype)
    return encoding.score_bias(x, x, context_of(encoding, at.shape[1], coordinates=at, cls=cls))


def distance(one: list[float], other: list[float], manhattan: bool) -> float:
    along = [abs(a - b) for a, b in zip(one, other, strict=True)]
    return sum(along) if manhattan else math.sqrt(sum(each * each for each in along))


@pytest.mark.parametrize("manhattan", [False, True])
def test_alibi_2d_is_its_formula(manhattan: bool) -> None:
    at = torch.randint(0, 20, (2, 6, 2))
    found = bias_of(made(f"alibi_2d(manhattan={manhattan})", 4, stack=PLANE), at)
    for row in range(2):
        for h in range(4):
            for i, here in enumerate(at[row].tolist()):
                for j, there in enumerate(at[row].tolist()):
                    wanted = -(2 ** (-8 * (h + 1) / 4)) * distance(here, there, manhattan)
                    assert found[row, h, i, j].item() == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize("manhattan", [False, True])
@pytest.mark.parametrize("power", [False, True])
def test_kerple_2d_is_its_formula(manhattan: bool, power: bool) -> None:
    """At fractions of a patch too; r1 and r2 within their bounds, the power of a sum at most 1."""
    r1, r2 = torch.tensor([0.7, -1.0, 1.9]), torch.tensor([0.4, 1.5, 9.0])
    at = torch.rand(1, 5, 2, dtype=torch.float64) * 6
    text = f"kerple_2d(power={power}, manhattan={manhattan})"
    found = bias_of(made(text, 3, stack=PLANE, r1=r1, r2=r2), at)
    most = math.inf if not power else 1.0 if manhattan else 2.0
    for h in range(3):
        a, b = max(r1[h].item(), 0.01), min(max(r2[h].item(), 0.01), most)
        for i, here in enumerate(at[0].tolist()):
            for j, there in enumerate(at[0].tolist()):
                away = distance(here, there, manhattan)
                wanted = -a * (away**b if power else math.log(1 + b * away))
                assert found[0, h, i, j].item() == pytest.approx(wanted, abs=1e-7)


def test_kerple_2d_is_kerple_along_one_axis() -> None:
    values = {"r1": torch.tensor([0.7, 1.1]), "r2": torch.tensor([0.4, 0.2])}
    line, plane = made("kerple", **values), made("kerple_2d", stack=PLANE, **values)
    at = torch.stack((torch.arange(9), torch.full((9,), 5)), dim=-1)[None]
    index = torch.arange(9)
    wanted = line.distance_bias((index - index[:, None]).flatten(), context_of(line, 9)).view(2, 9, 9)
    torch.testing.assert_close(bias_of(plane, at)[0], wanted, atol=1e-12, rtol=0)


@pytest.mark.parametrize("text", ["kerple_2d", "kerple_2d(power=True)", "kerple_2d(power=True, manhattan=True)"])
def test_gradients_are_numbers_and_layers_have_their_own(text: str) -> None:
    encoding = made(text, stack=PLANE)
    bias_of(encoding, grid(6, 2, 3)[None]).sum().backward()
    for name in ("r1", "r2"):
        gradient = encoding.get_parameter(name).grad
        assert gradient is not None and gradient.isfinite().all()
        assert gradient[1].all() and not gradient[0].any()


@pytest.mark.parametrize("text", ["alibi_2d", "kerple_2d"])
def test_cls_tokens_see_all_and_are_seen_without_a_penalty(text: str) -> None:
    encoding, at = made(text, stack=PLANE), grid(6, 2, 3)[None]
    cls = torch.tensor([[False, True, False, False, False, False]])
    found, plain = bias_of(encoding, at, cls), bias_of(encoding, at)
    assert not found[:, :, 1].any() and not found[..., 1].any()
    others = [0, 2, 3, 4, 5]
    assert torch.equal(found[:, :, others][..., others], plain[:, :, others][..., others])
    assert plain[:, :, 1].any()


@pytest.mark.parametrize("text", ["alibi_2d", "kerple_2d"])
def test_queries_are_the_last_of_the_keys(text: str) -> None:
    encoding, at = made(text, stack={"axes": 2}), grid(6, 2, 3)[None]
    cls = torch.tensor([[True, False, False, False, True, False]])
    whole, x = bias_of(encoding, at, cls), torch.zeros(1, 2, 6, 8, dtype=torch.float64)
    context = context_of(encoding, 6, coordinates=at, cls=cls)
    context.queries = 2
    context.query_positions = context.key_positions[:, 4:]
    assert torch.equal(encoding.score_bias(x[:, :, 4:], x, context), whole[:, :, 4:])


@pytest.mark.parametrize("text", ["alibi_2d", "kerple_2d"])
def test_biases_are_float32_at_the_least(text: str) -> None:
    at, exact = grid(6, 2, 3)[None], made(text, stack=PLANE)
    wanted = bias_of(exact, at)
    for dtype, wide in ((torch.bfloat16, torch.float32), (torch.float32, torch.float32)):
        found = bias_of(exact.float(), at, dtype=dtype)
        assert found.dtype == wide
        torch.testing.assert_close(found.double(), wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["alibi_2d", "kerple_2d"])
def test_what_cannot_be_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="manhattan=1"):
        registry.create(f"{name}(manhattan=1)", stack_of(**PLANE))
    assert "reads 2 coordinates" in str(registry.create(name, stack_of()).why_not("softmax"))
    assert str(registry.create(name, stack_of(**PLANE)).why_not("performer")).startswith("not built:")


@pytest.mark.parametrize(("text", "count"), [("alibi_2d", 0), ("kerple_2d", 2 * 2 * 2)])
def test_parameters(text: str, count: int) -> None:
    assert parameters(text, axes=2) == count
