"""Kerple, held against what the authors' own code answers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from goldens import by_distance, close, context_of, golden, made, parameters

pytestmark = pytest.mark.usefixtures("one_thread")


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


@pytest.mark.parametrize(("text", "count"), [("kerple", 2 * 2 * 2), ("kerple(power=True)", 2 * 2 * 2)])
def test_parameters(text: str, count: int) -> None:
    assert parameters(text) == count
