"""CoPE, held against what the authors' own code answers."""

from __future__ import annotations

import pytest
from goldens import close, context_of, golden, made, parameters

pytestmark = pytest.mark.usefixtures("one_thread")


def test_cope() -> None:
    theirs = golden("cope")
    encoding = made("cope(positions=6)", 4, table=theirs["pos_emb"])
    got = encoding.change_scores(theirs["scores_in"], theirs["queries"], theirs["keys"], context_of(encoding, 14))
    close(got, theirs["scores"], 1e-12)


def test_parameters() -> None:
    assert parameters("cope") == 8 * 64
