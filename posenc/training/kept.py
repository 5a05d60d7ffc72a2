"""A model kept for its owner (`--keep`): beside the weights, its tokeniser, and all that is needed to make it again.

cells/<id>/model.pt          the weights
           tokeniser.json    as the library `tokenizers` reads it; none where tokens are bytes
           model.json        configuration, digests of the above, versions; sealed with its own digest
           model.md          the card, once there is a record
"""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

from torch import Tensor

from posenc.common.errors import StoreError
from posenc.common.files import digest, write_atomically
from posenc.data.tokens import Tokeniser
from posenc.plan.cell import Cell
from posenc.records import provenance
from posenc.records.store import KEPT, Store
from posenc.training import checkpoint

SCHEMA = 1
CARD = "model.md"
ADVICE = "`posenc run SUITE --keep --rerun all` trains it again"


def write(store: Store, cell: Cell, weights: dict[str, Tensor], step: int, tokeniser: Tokeniser | None) -> None:
    """Write what `read` reads; the weights lie there already.

    Args:
        step: at which they were taken. tokeniser: None where tokens are bytes.
    """
    folder, words, file = store.cell_folder(cell.id), None, None
    if tokeniser is not None:
        written = tokeniser.tokenizer.to_str().encode()
        words, file = tokeniser.words is not None, sha256(written).hexdigest()
        write_atomically(folder / "tokeniser.json", written)
    described: dict[str, Any] = {
        "schema": SCHEMA,
        "id": cell.id,
        "name": cell.name,
        "config": cell.config,
        "step": step,
        "weights": checkpoint.digest(weights),
        "tokeniser": file,
        "words": words,
        "versions": provenance.versions(),
    }
    write_atomically(folder / KEPT, json.dumps({**described, "digest": digest(described)}, indent=1) + "\n")


def read(folder: Path) -> dict[str, Any]:
    """What `write` wrote of a cell in this folder.

    Raises:
        StoreError: it is damaged, or of another version of posenc.
    """
    path = folder / KEPT
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        sealed = isinstance(found, dict) and found.get("digest") == digest(
            {key: value for key, value in found.items() if key != "digest"}
        )
    except (OSError, ValueError, RecursionError):
        sealed = False
    if not sealed:
        raise StoreError(f"{path} is damaged: {ADVICE}")
    if found.get("schema") != SCHEMA:
        raise StoreError(f"{path} has schema {found.get('schema')!r}; this version reads {SCHEMA}: {ADVICE}")
    described: dict[str, Any] = found
    return described


def read_tokeniser(folder: Path, described: dict[str, Any]) -> Tokeniser | None:
    """The tokeniser beside a model; None where its tokens are bytes.

    Raises:
        StoreError: it is missing or damaged.
    """
    from tokenizers import Tokenizer

    if described["tokeniser"] is None:
        return None
    path = folder / "tokeniser.json"
    try:
        written = path.read_bytes()
    except OSError as error:
        raise StoreError(f"{path} cannot be read ({error.strerror}): {ADVICE}") from None
    if sha256(written).hexdigest() != described["tokeniser"]:
        raise StoreError(f"{path} is damaged: {ADVICE}")
    return Tokeniser(Tokenizer.from_str(written.decode()), bool(described["words"]))
