"""What files of data hold, with a word on what is wrong and where: rows of CSV, objects of JSON."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from typing import Any

from posenc.common.errors import DataError
from posenc.data.corpus import MARK, File, stream


def json_object(text: str, where: str) -> dict[str, Any]:
    """The object that a text is.

    Raises:
        DataError: it is none, or cut off.
    """
    try:
        found = json.loads(text.removeprefix(MARK))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: no whole JSON object ({error})") from None
    return require_object(found, where)


def require_object(value: Any, where: str) -> dict[str, Any]:
    """A value of JSON that must be an object. Raises DataError where it is another."""
    if not isinstance(value, dict):
        raise DataError(f"{where}: no JSON object, but {json.dumps(value)[:60]}")
    return value


def quoted(file: File) -> Iterator[tuple[int, list[str]]]:
    """The rows of a CSV file (RFC 4180) with the lines they begin on: quoted cells may hold commas and line ends.

    Raises:
        DataError: as `stream`, or it is no CSV.
    """
    csv.field_size_limit(2**31 - 1)
    reader = csv.reader((f"{line}\n" for line in stream(file)), strict=True)
    while True:
        number = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise DataError(f"{file}, line {number}: no CSV: {error}") from None
        if cells is None:
            return
        yield number, cells
