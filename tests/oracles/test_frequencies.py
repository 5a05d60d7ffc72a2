"""RoPE's frequencies for long rows, and how much sharper scores get, as the library transformers has them."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
import torch
from torch import Tensor

from posenc.api import registry
from posenc.api.stack import Stack

transformers = pytest.importorskip("transformers", reason="the peer transformers is not installed: nox -s oracles")
pytestmark = [pytest.mark.oracle, pytest.mark.usefixtures("one_thread")]

HEAD, ORIGINAL = 32, 96


def ours(text: str) -> Any:
    return registry.create(
        text, Stack(layers=1, heads=2, width=2 * HEAD, head_width=HEAD, max_length=ORIGINAL, causal=True)
    )


def theirs(
    kind: str, base: float, length: int | None = None, longest: int = ORIGINAL, **more: Any
) -> tuple[Tensor, float]:
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    given = {"rope_type": kind, "rope_theta": base, "original_max_position_embeddings": ORIGINAL, **more}
    config = transformers.LlamaConfig(
        hidden_size=2 * HEAD, num_attention_heads=2, max_position_embeddings=longest, rope_parameters=given
    )
    found, sharper = ROPE_INIT_FUNCTIONS[kind](config, torch.device("cpu"), length)
    return found.double(), float(sharper)


def alike(found: Tensor, wanted: Tensor) -> None:
    """Theirs are float32, by powers of a base: right to some 1e-6."""
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=0)


def drawn(seed: int) -> tuple[float, float]:
    """A base and a factor."""
    dice = random.Random(seed)
    return round(10 ** dice.uniform(2.5, 6), 1), round(dice.uniform(1.5, 12), 2)


def test_position_interpolation(fresh_seed: int) -> None:
    base, factor = drawn(fresh_seed)
    found = ours(f"rope_linear(base={base}, factor={factor})").frequencies(HEAD, torch.device("cpu"))
    alike(found, theirs("linear", base, factor=factor)[0])


def test_yarn(fresh_seed: int) -> None:
    base, factor = drawn(fresh_seed)
    fast, slow = 8.0, 1.5
    encoding = ours(f"yarn(base={base}, factor={factor}, fast={fast}, slow={slow})")
    wanted, sharper = theirs("yarn", base, factor=factor, beta_fast=fast, beta_slow=slow)
    alike(encoding.frequencies(HEAD, torch.device("cpu")), wanted)
    assert encoding.score_scale == pytest.approx(HEAD**-0.5 * sharper**2, rel=1e-12)


def test_llama3(fresh_seed: int) -> None:
    base, factor = drawn(fresh_seed)
    encoding = ours(f"rope_llama3(base={base}, factor={factor}, fast=5.0, slow=1.25)")
    wanted, sharper = theirs("llama3", base, factor=factor, low_freq_factor=1.25, high_freq_factor=5.0)
    alike(encoding.frequencies(HEAD, torch.device("cpu")), wanted)
    assert sharper == 1


@pytest.mark.parametrize("length", [ORIGINAL - 5, ORIGINAL, ORIGINAL + 1, 4 * ORIGINAL])
def test_dynamic_ntk(fresh_seed: int, length: int) -> None:
    base, factor = drawn(fresh_seed)
    found = ours(f"rope_dynamic(base={base}, factor={factor})").by_length(torch.tensor([length]))
    alike(found.flatten(), theirs("dynamic", base, length, factor=factor)[0])


@pytest.mark.parametrize("length", [ORIGINAL, ORIGINAL + 1])
def test_longrope(fresh_seed: int, length: int) -> None:
    base, _ = drawn(fresh_seed)
    dice = random.Random(fresh_seed)
    factor = float(dice.randint(2, 9))
    short, long = ([round(dice.uniform(1, 9), 3) for _ in range(HEAD // 2)] for _ in range(2))
    encoding = ours(f"longrope(base={base}, factor={factor})")
    encoding.short_factors, encoding.long_factors = (torch.tensor(x, dtype=torch.float64) for x in (short, long))
    wanted, sharper = theirs(
        "longrope", base, length, int(factor) * ORIGINAL, factor=factor, short_factor=short, long_factor=long
    )
    alike(encoding.by_length(torch.tensor([length])).flatten(), wanted)
    # Theirs is sqrt(1 + ln f / ln L0), on queries and on keys.
    assert sharper == pytest.approx(math.sqrt(1 + math.log(factor) / math.log(ORIGINAL)), rel=1e-12)
    assert encoding.score_scale == pytest.approx(HEAD**-0.5 * sharper**2, rel=1e-12)
