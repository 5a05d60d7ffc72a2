"""Records to a report: tables, figures, HTML and Markdown. It reads what is on disk; no network, no torch."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from posenc.report.render import write_report
from posenc.report.tables import scores_frame
from posenc.report.terminal import terminal_table
from posenc.store import Store

__all__ = ["load_records", "terminal_table", "write_report"]


def load_records(folder: str | Path) -> pd.DataFrame:
    """The scores of a results folder (`results/<suite>`), one row a score; cells without scores say why."""
    store = Store(folder)
    manifest = store.read_manifest()
    return scores_frame(store.records(), manifest)
