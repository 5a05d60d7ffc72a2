"""The real files, where POSENC_DATA names a folder of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from official import READERS

from posenc.data import cail, documents, glue, parallel

pytestmark = pytest.mark.usefixtures("fresh_readers")


# What is small enough to be there whole; of the others there may be parts, and then the note says so.
WHOLE = ("multi30k", "glue/mrpc", "glue/sst2", "glue/stsb")


@pytest.mark.data
@pytest.mark.skipif("POSENC_DATA" not in os.environ, reason="POSENC_DATA names no folder of official data")
class TestRealFiles:
    @pytest.mark.parametrize("name", READERS)
    def test_they_are_whole_or_the_note_says_how_much_is_there(self, name: str) -> None:
        found = READERS[name](Path(os.environ["POSENC_DATA"]))
        assert found.name == name
        counts = {split: len(rows) for split, rows in found.rows.items()}
        for split, wanted in (found.expected or {}).items():
            if counts.get(split, 0) != wanted:
                assert f"{wanted:,}" in found.note
                assert "not comparable with published figures" in found.note
        if name in WHOLE:
            assert counts == found.expected
            assert found.note == ""
        texts = [cell for rows in found.rows.values() for row in rows for cell in row if isinstance(cell, str)]
        assert all(cell.strip() or name == "glue/qqp" for cell in texts)

    def test_known_rows_stand_where_they_should(self) -> None:
        folder = Path(os.environ["POSENC_DATA"])
        assert parallel.multi30k(folder).rows["train"][0] == (
            "Two young, White males are outside near many bushes.",
            "Zwei junge weiße Männer sind im Freien in der Nähe vieler Büsche.",
        )
        assert parallel.wmt14(folder).rows["test"][0][0] == "Gutach: Increased safety for pedestrians"
        assert len(parallel.wmt14(folder).rows["test"]) in (3003, 2737)
        assert glue.stsb(folder).rows["validation"][0][2] == 5.0
        assert len(glue.qnli(folder).rows["validation"]) == 5463
        first = glue.mrpc(folder).rows["train"][0]
        assert first[0].startswith('Amrozi accused his brother , whom he called " the witness "')
        assert first[2] == 1
        assert {row[3] for row in cail.cail2019_scm(folder).rows["test"]} == {"B", "C"}

    def test_no_document_is_in_two_splits(self) -> None:
        found = documents.english(Path(os.environ["POSENC_DATA"]))
        parts = [{row[0] for row in rows} for rows in found.rows.values()]
        assert sum(map(len, parts)) == len(set().union(*parts))
        total = sum(map(len, found.rows.values()))
        assert 0.78 < len(found.rows["train"]) / total < 0.82
