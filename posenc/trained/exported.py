"""A trained model in a folder of its own, to be taken elsewhere: `posenc export`, and `posenc.load(FOLDER)` there.

FOLDER/model.safetensors  the weights
       model.json         as `--keep` has it: configuration, digests, versions; sealed with its own digest
       record.json        what its run wrote down: scores, data, times
       tokeniser.json     as the library `tokenizers` reads it; none where tokens are bytes
       README.md          the card

`--to transformers` writes what `from_pretrained` reads instead, with the card.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from posenc.common.errors import ConfigError, StorageError, StoreError
from posenc.common.files import digest
from posenc.data.tokens import SPECIAL, Tokeniser
from posenc.records.record import Record
from posenc.records.store import KEPT
from posenc.training import checkpoint, kept

if TYPE_CHECKING:
    from posenc.trained.model import Trained

FORMS = ("posenc", "transformers")
WEIGHTS, RECORD = "model.safetensors", "record.json"


def write(trained: Trained, folder: Path, to: str = "posenc") -> None:
    """Write a model into a folder that is not there yet; whole or not at all.

    Raises:
        ConfigError: the folder is there, or there is no such form.
        NotPossibleError: transformers has no such model. StorageError: the disk takes no writes.
    """
    if to not in FORMS:
        raise ConfigError(f"--to {to}: allowed: {', '.join(FORMS)}")
    if folder.exists() or folder.is_symlink():
        raise ConfigError(f"{folder} is there already: name a folder that is not")
    if to == "transformers":
        from posenc.trained import to_transformers

        model: Any = to_transformers.converted(trained.settings, trained.model)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as made:
            inside = Path(made) / "whole"
            inside.mkdir()
            if to == "transformers":
                _for_transformers(trained, model, inside)
            else:
                _own(trained, inside)
            (inside / "README.md").write_text(trained.card, encoding="utf-8")
            os.replace(inside, folder)
    except OSError as error:
        raise StorageError(folder, error) from None


def _own(trained: Trained, folder: Path) -> None:
    from safetensors.torch import save_file

    # Contiguous: safetensors takes no views. The format, and what it is of, for other readers.
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in trained.weights.items()}
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt", "posenc": trained.cell.name})
    (folder / KEPT).write_text(json.dumps(trained.described, indent=1) + "\n", encoding="utf-8")
    (folder / RECORD).write_text(json.dumps(trained.record, indent=1) + "\n", encoding="utf-8")
    if trained.tokeniser is not None:
        (folder / "tokeniser.json").write_bytes(trained.tokeniser.tokenizer.to_str().encode())


def _for_transformers(trained: Trained, model: Any, folder: Path) -> None:
    model.save_pretrained(folder)
    words = trained.tokeniser
    if words is None or words.words is not None:
        return  # bytes are tokens; what cuts Chinese words is no part of theirs
    from transformers import PreTrainedTokenizerFast

    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL, strict=True))
    PreTrainedTokenizerFast(tokenizer_object=words.tokenizer, **names).save_pretrained(folder)


def read(folder: Path) -> tuple[dict[str, Any], Record, dict[str, Tensor], Tokeniser | None]:
    """What `write` wrote: what was kept, the record, the weights by name, the tokeniser.

    Raises:
        StoreError: it is no such folder, or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not (folder / KEPT).is_file() or not (folder / WEIGHTS).is_file():
        raise StoreError(
            f"{folder} holds no exported model: `posenc export` writes one; of a suite's results give the cell too"
        )
    described = kept.read(folder)
    try:
        record: Any = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        own = {key: value for key, value in record.items() if key != "digest"} if isinstance(record, dict) else None
    except (OSError, ValueError, RecursionError):
        own = None
    if own is None or record.get("digest") != digest(own) or record.get("id") != described["id"]:
        raise StoreError(f"{folder / RECORD} is damaged, or of another model: export it again")
    try:
        weights = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError, ValueError) as error:
        raise StoreError(f"{folder / WEIGHTS} is damaged ({str(error).splitlines()[0]}): export it again") from None
    if checkpoint.digest(weights) != described["weights"]:
        raise StoreError(f"{folder / WEIGHTS} is damaged, or of another model: export it again")
    return described, record, weights, kept.read_tokeniser(folder, described)
