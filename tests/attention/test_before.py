"""States of all chunks at once, as a GPU makes them: the loop's, float64's, and causal to the last bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from models import built_in

from posenc.attention.linear import before, scales
from posenc.attention.linear.before import Between, at_once, one_by_one
from posenc.backbone.config import BackboneConfig
from posenc.backbone.transformer import Transformer

pytestmark = pytest.mark.usefixtures("one_thread")
CHUNKS = 300


def drawn(seed: int, logs: bool, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, Between]:
    """Of rows with runs: a state is dropped (`NEVER`) where another example begins."""
    generator = torch.Generator().manual_seed(seed)
    added = torch.randn(2, 3, CHUNKS, 4, 5, generator=generator, dtype=torch.float64)
    exponents = -torch.randint(0, 3, (2, 3, CHUNKS), generator=generator)
    exponents[torch.rand(2, 3, CHUNKS, generator=generator) < 0.02] = scales.NEVER
    factors = -torch.rand(1, 3, CHUNKS, generator=generator, dtype=torch.float64) * 3 if logs else None
    return added.to(dtype), Between(exponents.int(), dtype, None if factors is None else factors.to(dtype))


@pytest.mark.parametrize("logs", [False, True])
def test_states_at_once_are_the_loops(logs: bool, fresh_seed: int) -> None:
    added, between = drawn(fresh_seed, logs)
    exact = one_by_one(added, between.factors())
    torch.testing.assert_close(at_once(added, between), exact, atol=1e-12, rtol=1e-12)
    narrow = at_once(*drawn(fresh_seed, logs, torch.float32)).double()
    assert ((narrow - exact).norm() / exact.norm()).item() < 1e-6


@pytest.mark.parametrize("logs", [False, True])
def test_a_later_chunk_moves_no_bit_of_an_earlier_state(logs: bool, fresh_seed: int) -> None:
    added, between = drawn(fresh_seed, logs, torch.float32)
    found = at_once(added, between)
    for chunk in (0, 1, 63, 64, 255, 299):
        other, exponents = added.clone(), between.exponents.clone()
        other[:, :, chunk:] *= -1e20
        exponents[..., chunk:] -= 7
        changed = None if between.logs is None else between.logs.clone()
        if changed is not None:
            changed[..., chunk:] *= 2
        moved = at_once(other, Between(exponents, torch.float32, changed))
        assert torch.equal(moved[:, :, : chunk + 1], found[:, :, : chunk + 1]), chunk


FORMS = ["none", "alibi", "fox", "t5", "shaw(clip=2)", "rope_outside", "permuteformer", "cosformer", "xpos"]


@pytest.mark.parametrize("packed", [False, True], ids=["whole", "packed"])
@pytest.mark.parametrize("name", [name for name in FORMS if name in built_in("performer") or "(" in name])
def test_models_by_either_way_agree(name: str, packed: bool, monkeypatch: Any, fresh_seed: int) -> None:
    """Outputs and gradients of every form, of 40 chunks, in float64; and what comes after moves no bit."""
    config = BackboneConfig(layers=1, width=16, heads=2, feedforward=16, attention="performer", features=8, chunk=4)
    tokens = torch.randint(256, (2, 160), generator=torch.Generator().manual_seed(fresh_seed))
    segments = torch.tensor([[0] * 70 + [1] * 3 + [2] * 87] * 2) if packed else None
    found = []
    for way in ("loop", "at once"):
        if way == "at once":
            monkeypatch.setattr(before, "_in_parallel", lambda device: True)
        model = Transformer(config, name, 160).initialise(fresh_seed).double().begin_step(fresh_seed, 0)
        out = model.hidden(tokens, segments=segments)
        out.square().mean().backward()
        found.append([out.detach(), *(p.grad for p in model.parameters() if p.grad is not None)])
    for loop, once in zip(*found, strict=True):
        torch.testing.assert_close(once, loop, atol=1e-10, rtol=1e-8)
    with torch.no_grad():
        tokens = tokens.clone()
        tokens[:, 101:] = 0
        assert torch.equal(model.hidden(tokens, segments=segments)[:, :101], found[1][0][:, :101])
