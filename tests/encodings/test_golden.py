"""What the authors' own code answers, and ours: numbers made by their code from parameters away from their starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from posenc.api import registry
from posenc.api.encoding import Context, Encoding, prepare
from posenc.api.stack import Stack
from posenc.common.errors import NotPossibleError
from posenc.encodings.alibi import slopes
from posenc.encodings.rope import Rope

pytestmark = pytest.mark.usefixtures("one_thread")

GOLDEN = Path(__file__).parent.parent / "golden"


def golden(name: str) -> dict[str, Tensor]:
    with np.load(GOLDEN / f"{name}.npz") as file:
        arrays = {key: np.asarray(file[key]) for key in file.files}
        return {key: torch.from_numpy(array) for key, array in arrays.items() if array.dtype.kind != "U"}


def made(text: str, heads: int, head_width: int = 8, **values: Tensor) -> Encoding:
    """An encoding of two layers in float64; `values` are its parameters in the second of them."""
    stack = Stack(layers=2, heads=heads, width=heads * head_width, head_width=head_width, max_length=64, causal=True)
    encoding = registry.create(text, stack).double()
    encoding.initialise(torch.Generator().manual_seed(1))
    with torch.no_grad():
        for name, value in values.items():
            parameter = encoding.get_parameter(name)
            own = parameter[1] if parameter.shape != value.shape else parameter
            own.copy_(value.reshape(own.shape))
    return encoding


def context_of(encoding: Encoding, length: int, **more: Any) -> Context:
    device = torch.device("cpu")
    return prepare(encoding, Context(stack=encoding.stack, queries=length, keys=length, device=device, layer=1, **more))


def by_distance(encoding: Encoding, length: int) -> Tensor:
    """Its bias of each pair (H,L,L)."""
    index = torch.arange(length)
    distances = index - index[:, None]
    bias = encoding.distance_bias(distances.flatten(), context_of(encoding, length))
    return bias.unflatten(1, distances.shape)


def seen(x: Tensor) -> Tensor:
    """The pairs that a causal model sees, in a row."""
    return x[..., torch.ones(x.shape[-2:], dtype=torch.bool).tril()].double()


def close(one: Tensor, other: Tensor, atol: float) -> None:
    torch.testing.assert_close(seen(one), seen(other), atol=atol, rtol=0)


@pytest.mark.parametrize("heads", [8, 12])
def test_alibi(heads: int) -> None:
    theirs = golden(f"alibi_h{heads}")
    torch.testing.assert_close(slopes(heads), theirs["slopes"].float(), atol=1e-7, rtol=0)
    close(by_distance(made("alibi", heads), 14), theirs["bias"], 1e-6)


def test_kerple() -> None:
    theirs = golden("kerple_log")
    close(by_distance(made("kerple", 4, r1=theirs["r1"], r2=theirs["r2"]), 14), theirs["bias"], 1e-12)


def test_kerples_bounds_keep_their_gradients() -> None:
    """What lies outside is taken at its bound, and may move back."""
    for text, least in (("kerple", (0.01, 0.01)), ("kerple(power=True)", (0.01, 2.0))):
        encoding = made(text, 2, r1=torch.tensor([-1.0, 0.5]), r2=torch.tensor([5.0 if "power" in text else -1.0, 0.5]))
        bias = encoding.distance_bias(torch.tensor([-3, 0]), context_of(encoding, 4))
        r1, r2 = least
        wanted = -r1 * (3**r2 if "power" in text else np.log1p(r2 * 3))
        assert bias[0, 0].item() == pytest.approx(wanted) and not bias[:, 1].any()
        bias.sum().backward()
        for name in ("r1", "r2"):
            gradient = encoding.get_parameter(name).grad
            assert gradient is not None and gradient.isfinite().all() and gradient[1, 0] != 0


def test_fire() -> None:
    theirs = golden("fire")
    values = {"c": theirs["c"], "threshold": theirs["L_multiplier"], "inner": theirs["w1"], "inner_bias": theirs["b1"],
              "outer": theirs["w2"], "outer_bias": theirs["b2"]}  # fmt: skip
    encoding = made("fire(length=256.0)", 4)
    with torch.no_grad():
        for name, value in values.items():
            own = encoding.get_parameter(name)[1]
            own.copy_(value.reshape(own.shape))
    x = torch.zeros(1, 4, 14, 8, dtype=torch.float64)
    close(encoding.score_bias(x, x, context_of(encoding, 14))[0], theirs["bias"], 1e-6)


def test_cope() -> None:
    theirs = golden("cope")
    encoding = made("cope(positions=6)", 4, table=theirs["pos_emb"])
    got = encoding.change_scores(theirs["scores_in"], theirs["queries"], theirs["keys"], context_of(encoding, 14))
    close(got, theirs["scores"], 1e-12)


@pytest.mark.parametrize(("text", "file"), [("dape(bias=kerple)", "dape_kerple"), ("dape_v2", "dape_v2_kerple")])
def test_dape(text: str, file: str) -> None:
    theirs = golden(file)
    values = {"inner_encoding.r1": theirs["r1"], "inner_encoding.r2": theirs["r2"], "first": theirs["w1"],
              "second": theirs["w2"], "first_bias": theirs["b1"], "second_bias": theirs["b2"]}  # fmt: skip
    encoding = made(text, 4, **values)
    x = torch.zeros(2, 4, 14, 8, dtype=torch.float64)
    close(encoding.change_scores(theirs["scores_in"], x, x, context_of(encoding, 14)), theirs["scores"], 1e-12)


def test_dape_adapts_a_bias_by_distance_and_nothing_else() -> None:
    for bias in ("rope", "shaw", "none", "t5+rope", "layers(t5, alibi, every=2)"):
        with pytest.raises(NotPossibleError, match="dape adapts a bias by distance"):
            made(f"dape(bias={bias})", 4)
    assert made("dape(bias=t5)", 4).directions == {"causal", "bidirectional"}
    assert registry.describe("dape(bias=kerple)")["name"] == "dape"
    assert registry.describe("dape(bias=kerple(power=True))") == {
        "name": "dape(bias=kerple(power=True))", "version": "1(1)", "package": registry.describe("rope")["package"],
    }  # fmt: skip


def test_fox() -> None:
    theirs = golden("fox")
    encoding = made("fox", 2, weight=theirs["gate_weight"], bias=theirs["gate_bias"])
    context = context_of(encoding, 12, hidden=theirs["hidden"])
    q, k, v = (theirs[name] for name in ("queries", "keys", "values"))
    scores = q @ k.transpose(-1, -2) / 8**0.5 + encoding.score_bias(q, k, context)
    weights = scores.masked_fill(~context.visible, -torch.inf).softmax(-1)
    torch.testing.assert_close(weights @ v, theirs["output"], atol=1e-12, rtol=0)


def test_cable() -> None:
    """Their whole attention: without 1/sqrt(K), which is put back here."""
    theirs = golden("cable")
    encoding = made("cable", 2, weight=theirs["gate_weight"], bias=theirs["gate_bias"])
    hidden = theirs["hidden"]
    context = context_of(encoding, 11, hidden=hidden)
    mixed = hidden @ theirs["qkv_weight"].T + theirs["qkv_bias"]
    q, k, v = (part.unflatten(-1, (2, 8)).transpose(1, 2) for part in mixed.chunk(3, dim=-1))
    scores = q @ k.transpose(-1, -2) + encoding.score_bias(q, k, context)
    heads = scores.masked_fill(~context.visible, -torch.inf).softmax(-1) @ v
    output = heads.transpose(1, 2).flatten(2) @ theirs["out_weight"].T + theirs["out_bias"]
    torch.testing.assert_close(output, theirs["output"], atol=1e-12, rtol=0)


def test_cable_is_fox_with_its_gate_negated() -> None:
    generator = torch.Generator().manual_seed(3)
    weight, bias = torch.randn(2, 16, generator=generator), torch.randn(2, generator=generator)
    fox, cable = made("fox", 2, weight=weight, bias=bias), made("cable", 2, weight=-weight, bias=-bias)
    hidden = torch.randn(3, 9, 16, generator=generator, dtype=torch.float64)
    x = torch.zeros(3, 2, 9, 8, dtype=torch.float64)
    answers = [one.score_bias(x, x, context_of(one, 9, hidden=hidden)) for one in (fox, cable)]
    assert torch.equal(*answers) and answers[0].abs().max() > 1


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("linear", "rope_linear(factor=4.0)"),
        ("yarn", "yarn(factor=4.0, original=512)"),
        ("yarn_options", "yarn(factor=8.0, original=256, fast=24.0, slow=2.0)"),
        ("llama3", "rope_llama3(factor=8.0, original=1024)"),
        ("proportional", "p_rope(p=0.25)"),
    ],
)
def test_frequencies_of_rope(kind: str, text: str) -> None:
    """At every length the same: none of these is "dynamic"."""
    theirs = golden("rope_frequencies")
    encoding = made(text, 2, head_width=64)
    assert isinstance(encoding, Rope)
    plain = made("rope", 2, head_width=64)
    for length in (256, 512, 1024, 2048, 8192):
        got = encoding.frequencies(64, torch.device("cpu"))
        torch.testing.assert_close(got.float(), theirs[f"{kind}_{length}_inv_freq"].float(), atol=0, rtol=2e-7)
        factor = theirs[f"{kind}_{length}_attention_factor"].item()
        assert encoding.score_scale == pytest.approx(plain.score_scale * factor**2)


def test_ntk_keeps_the_fastest_frequency_and_divides_the_slowest_by_its_factor() -> None:
    plain, scaled = (made(text, 2, head_width=64) for text in ("rope", "rope_ntk(factor=4.0)"))
    assert isinstance(plain, Rope) and isinstance(scaled, Rope)
    ratio = plain.frequencies(64, torch.device("cpu")) / scaled.frequencies(64, torch.device("cpu"))
    torch.testing.assert_close(ratio[[0, -1]], torch.tensor([1.0, 4.0], dtype=torch.float64))
    assert (ratio.diff() > 0).all()


def test_hope_keeps_what_turns_once_within_the_length() -> None:
    encoding = made("hope(length=100)", 2, head_width=64)
    assert isinstance(encoding, Rope)
    found = encoding.frequencies(64, torch.device("cpu"))
    for pair, theta in enumerate(found.tolist()):
        plain = 10000 ** (-2 * pair / 64)
        assert theta == (pytest.approx(plain) if plain * 100 >= 2 * np.pi else 0.0)
    assert 0 < (found > 0).sum() < 32
