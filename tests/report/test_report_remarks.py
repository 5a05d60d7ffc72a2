"""What a record says of how its cell went on, and of rows that float32 lost, stands in the report."""

from __future__ import annotations

from pathlib import Path

from made import cell, make_store, pages, record, visible


def test_remarks_and_lost_rows_stand_on_both_pages_with_their_cells(tmp_path: Path) -> None:
    cells = [cell("rope", 0), cell("rope", 1), cell("none", 0, attention="performer")]
    remark = "checkpoint.pt was <b>cut</b>; the cell began again"
    records = [record(one, 3.0, 4.0) for one in cells]
    records[0]["remarks"] = records[1]["remarks"] = [remark]
    records[2]["scores"][0]["details"] = {"rows_lost": 0.0}
    records[2]["scores"][1]["details"] = {"rows_lost": 0.0234}
    html, markdown = pages(make_store(tmp_path, cells, records))
    for page in (visible(html), markdown):
        assert page.count("began again") == 1
        assert "2.34% in test at 256" in page and "test at 64" not in page
        assert "enwik8/performer/none/L64/s0" in page
    assert f"{remark} (enwik8/softmax/rope/L64/s0, enwik8/softmax/rope/L64/s1)" in visible(html)


def test_without_any_there_is_no_such_section(tmp_path: Path) -> None:
    one = cell("rope", 0)
    html, markdown = pages(make_store(tmp_path, [one], [record(one, 3.0, 4.0, remarks=[])]))
    assert "To know of single cells" not in visible(html) and "To know of single cells" not in markdown
