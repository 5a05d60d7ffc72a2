"""ALiBi, held against what the authors' own code answers."""

from __future__ import annotations

import pytest
import torch
from goldens import by_distance, close, golden, made

from posenc.encodings.alibi import slopes

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("heads", [8, 12])
def test_alibi(heads: int) -> None:
    theirs = golden(f"alibi_h{heads}")
    torch.testing.assert_close(slopes(heads), theirs["slopes"].float(), atol=1e-7, rtol=0)
    close(by_distance(made("alibi", heads), 14), theirs["bias"], 1e-6)
