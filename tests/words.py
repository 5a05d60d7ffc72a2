"""A text of a few words, and the tokeniser of a token a word that is learnt from it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from posenc.data.tokens import Kind, Tokeniser, tokeniser

TEXT = "the cat dog saw big small a bird and tree ran sat on in house sang"
WORDS = TEXT.split()


def learnt(cache: Path) -> Iterator[Tokeniser]:
    """A token a word, while what is cached lies in a folder of its own: the body of a module's fixture."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POSENC_CACHE", str(cache))
        yield tokeniser(Kind("wordpiece", 200), [TEXT] * 5, "words", None)
