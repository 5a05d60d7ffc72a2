"""A suite's records to its report: one HTML file, one Markdown file with figures, and tables as CSV and LaTeX."""

from __future__ import annotations

import json
from pathlib import Path

from posenc.common.errors import StoreError
from posenc.common.files import write_atomically
from posenc.records.store import Store
from posenc.report import fresh
from posenc.report.pages import Report
from posenc.report.view import View


def write_report(store: Store, output: Path) -> None:
    """Write the report of a suite from its records alone.

    Every file is made before the first is written, each is written whole, and the HTML file last. Of what lies in the
    folder nothing is removed but files that an earlier report listed there.

    Raises:
        StoreError: there are no results, the manifest is damaged, the folder cannot be written, or holds files of the
            user's.
    """
    fresh.require_own(store, output)
    inputs = fresh.inputs(store)
    view = View(store, output)
    files = Report(view).files()
    told = {
        "inputs": inputs,
        "files": sorted(files),
        "unread": list(dict.fromkeys(view.unread)),
        "undrawn": view.undrawn,
    }
    listed = json.dumps(told, indent=1) + "\n"
    try:
        for path in fresh.superseded(output, files):
            path.unlink()
        # The list first: whatever else of this report is there, it is known as a report's.
        write_atomically(output / fresh.LIST, listed)
        for name, text in files.items():
            write_atomically(output / name, text)
    except OSError as error:
        raise StoreError(f"cannot write the report to {output}: {error}") from None
