"""GOAT's series of cosines and sines, term by term."""

from __future__ import annotations

import math

import pytest
import torch
from goldens import by_distance, made, parameters

from posenc.common.errors import ConfigError

pytestmark = pytest.mark.usefixtures("one_thread")


def test_goat_is_its_series() -> None:
    alpha, beta = torch.randn(2, 3, 5, dtype=torch.float64).unbind()
    encoding = made("goat(rank=5, base=100.0)", 3, alpha=alpha, beta=beta)
    found = by_distance(encoding, 9)
    for h, i, j in ((0, 8, 0), (1, 3, 3), (2, 2, 7)):
        wanted = sum(
            alpha[h, r].item() * math.cos(100 ** (-r / 4) * (i - j))
            + beta[h, r].item() * math.sin(100 ** (-r / 4) * (i - j))
            for r in range(5)
        )
        assert found[h, i, j].item() == pytest.approx(wanted, abs=1e-12)


def test_goat_starts_without_a_prior() -> None:
    assert not by_distance(made("goat", 2), 6).any()


def test_parameters_and_bad_options() -> None:
    assert parameters("goat") == 2 * 2 * 8 * 2
    for text in ("goat(rank=1)", "goat(base=1.0)"):
        with pytest.raises(ConfigError, match="must be"):
            made(text)
