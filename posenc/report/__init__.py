"""Records to a report: tables, figures, HTML and Markdown. It reads what is on disk; no network, no torch.

Each function imports what it needs when it is called: a report that is up to date costs no pandas.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from posenc.records.store import Store
from posenc.report import fresh

if TYPE_CHECKING:
    import pandas as pd

    from posenc.report.terminal import Results

__all__ = ["load_records", "terminal_table", "unread", "write_report"]


def load_records(folder: str | Path) -> pd.DataFrame:
    """The scores of a results folder (`results/<suite>`), one row a score; cells without scores say why.

    Raises:
        StoreError: there are no results, or the manifest is damaged.
    """
    from posenc.report.reading import manifest_of, records_of
    from posenc.report.statistics.tables import scores_frame

    store = Store(folder)
    manifest = manifest_of(store)
    return scores_frame(records_of(store, manifest, []), manifest)


def terminal_table(store: Store) -> Results:
    """The tables of a suite's results for a terminal."""
    from posenc.report import terminal

    return terminal.terminal_table(store)


def write_report(store: Store, output: Path) -> Path:
    """Write the report of a suite from its records alone, unless it is up to date; the HTML file's path.

    Raises:
        StoreError: the records are missing or damaged, the folder cannot be written, or holds files of the user's.
    """
    output = Path(output)
    if not fresh.is_fresh(store, output):
        from posenc.report import write

        write.write_report(store, output)
    return output / "index.html"


def unread(output: Path) -> list[str]:
    """What the report in a folder could not read or draw, a line each."""
    told = fresh.read(Path(output)) or {}
    return [str(line) for line in told.get("unread") or []]
