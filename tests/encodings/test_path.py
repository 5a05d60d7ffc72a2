"""PaTH's scores, held against flash-linear-attention's plain form and against products of matrices one by one."""

from __future__ import annotations

import pytest
import torch
from goldens import context_of, golden, made, parameters
from torch import Tensor
from torch.nn import functional

from posenc.common.errors import ConfigError
from posenc.encodings.path import householder_scores

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("file", ["path", "path_fox"])
def test_path(file: str) -> None:
    theirs = {name: array.double() for name, array in golden(file).items()}
    scores = householder_scores(theirs["queries"], theirs["keys"], theirs["directions"], theirs["beta"])
    if file == "path_fox":
        sums = theirs["log_gates"].cumsum(-1)
        scores = scores + sums[..., None] - sums[..., None, :]
    hidden = torch.ones(12, 12, dtype=torch.bool).triu(1)
    weights = (scores / 8**0.5).masked_fill(hidden, -torch.inf).softmax(-1)
    torch.testing.assert_close(weights @ theirs["values"], theirs["output"], atol=1e-6, rtol=0)


def one_by_one(q: Tensor, k: Tensor, w: Tensor, beta: Tensor, i: int, j: int) -> Tensor:
    row = q[i]
    for t in range(i, j, -1):
        row = row - beta[t] * (row @ w[t]) * w[t]
    return row @ k[j]


@pytest.mark.parametrize("text", ["path(rank=4)", "path_no_convolution(rank=4)", "path(rank=4, gate=True)"])
def test_its_hook_is_the_products_one_by_one(text: str) -> None:
    encoding = made(text, 2)
    with torch.no_grad():
        for parameter in encoding.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    hidden = torch.randn(1, 7, 16, dtype=torch.float64)
    q, k = torch.randn(2, 1, 2, 7, 8, dtype=torch.float64).unbind()
    found = encoding.pair_scores(q, k, context_of(encoding, 7, hidden=hidden))
    own = {name: parameter[1] for name, parameter in encoding.named_parameters()}
    w = hidden[0] @ own["down"].T @ own["up"].T
    if "taps" in own:
        rows = functional.pad(w, (0, 0, 2, 0))
        w = functional.silu(torch.stack([sum(own["taps"][:, a] * rows[t + a] for a in range(3)) for t in range(7)]))
    w = w.unflatten(-1, (2, 8)).transpose(0, 1)
    w = w / (w.square().sum(-1, keepdim=True) + 1e-6).sqrt()
    beta = 2 * (hidden[0] @ own["beta_weight"].T + own["beta_bias"]).sigmoid().T
    gates = (hidden[0] @ own["gate_weight"].T + own["gate_bias"]).sigmoid().log().T if "gate" in text else None
    for h, i, j in ((0, 6, 0), (1, 6, 5), (1, 3, 3), (0, 4, 1)):
        wanted = one_by_one(q[0, h], k[0, h], w[h], beta[h], i, j)
        if gates is not None:
            wanted = wanted + gates[h, j + 1 : i + 1].sum()
        assert found[0, h, i, j].item() == pytest.approx(wanted.item(), abs=1e-10)


def test_parameters_and_bad_options() -> None:
    base = 16 * 32 + 32 * 16 + 2 * (16 + 1)
    assert parameters("path_no_convolution") == 2 * base
    assert parameters("path") == 2 * (base + 16 * 3)
    assert parameters("path(gate=True)") == 2 * (base + 16 * 3 + 2 * (16 + 1))
    with pytest.raises(ConfigError, match="rank=0: must be at least 1"):
        made("path(rank=0)")
