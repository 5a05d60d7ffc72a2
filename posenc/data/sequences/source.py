"""A generator with its options as a task has it, and its rows by split: no sequence of one split stands in another."""

from __future__ import annotations

import hashlib
import inspect
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posenc.api.options import allowed, fitted, options_of, short
from posenc.common.errors import ConfigError, DataError, PluginError, PosencError, UnknownNameError
from posenc.common.seeds import derive
from posenc.data.sequences.generator import UNASKED, Answered, Generator, Labelled, Symbols

SPLITS = {"test": 0.1, "validation": 0.2, "train": 1.0}
"""Up to which share of all digests a row belongs to a split: a tenth, a tenth, and the rest."""
PROBED = 512
"""Rows of a size that are looked at for one of a split. Where a tenth of them are a split's, they all miss it once in
10^23 cases; so where none is found, the size has hardly another row."""
DRAWN = 40
"""For each distinct row of a test set so many rows are drawn, at most."""
CHUNK = 256
"""Rows that are drawn at once for a test set."""


@dataclass(frozen=True)
class Sequences:
    """A generator and what a reader of results must know of it.

    Which split a row may stand in follows from a digest of its symbols alone. So train and test never share a sequence,
    whatever seeds they are drawn from. Of the smallest sizes, where there are few rows, a split may have none: that
    size is then left out of the split.

    Attributes:
        name: "sequences/copy". options: as the task gives them.
        digest: SHA-256 of the code that makes the rows, and of the options.
    """

    name: str
    generator: Generator
    options: Mapping[str, Any]
    digest: str
    note: str
    _found: dict[tuple[str, int], bool] = field(default_factory=dict, repr=False)

    def describe(self) -> dict[str, object]:
        """Its part in a record."""
        return {"name": self.name, "digest": self.digest, "generated": True, "note": self.note}

    def sizes(self, split: str, longest: int) -> list[int]:
        """The sizes up to `longest` of which a split has rows, rising."""
        return [size for size in self.generator.sizes(longest) if self.has(split, size)]

    def has(self, split: str, size: int) -> bool:
        """Whether a split has rows of a size."""
        if (split, size) not in self._found:
            random = np.random.default_rng(derive(0, "sequences", self.name, "probe", size))
            some = (_of(split, self.generator.draw(random, size, 32)).any() for _ in range(PROBED // 32))
            self._found[split, size] = any(some)
        return self._found[split, size]

    def train(self, random: np.random.Generator, size: int, count: int) -> Answered | Labelled:
        """`count` rows of a size for training.

        Raises:
            DataError: there are none.
        """
        kept: list[tuple[Symbols, Symbols]] = []
        missing = count
        for _ in range(1000):
            drawn = self.generator.draw(random, size, missing + missing // 3 + 1)
            own = _of("train", drawn)
            kept.append((drawn[0][own], drawn[1][own]))
            missing -= int(own.sum())
            if missing <= 0:
                symbols, asked = (np.concatenate(part)[:count] for part in zip(*kept, strict=True))
                return type(drawn)(symbols, asked)
        raise DataError(f"{self.name}: hardly a row of size {size} is free for training")

    def fixed(self, split: str, size: int, count: int, generator: Generator | None = None) -> Answered | Labelled:
        """Up to `count` different rows of a size of "test" or "validation": the same in every process.

        Fewer where there are hardly more.

        Args:
            generator: of other options, for a test set that has some.
        """
        generator = generator or self.generator
        random = np.random.default_rng(derive(0, "sequences", self.name, split, size))
        found: dict[bytes, tuple[Symbols, Symbols]] = {}
        for _ in range(0, DRAWN * count, CHUNK):
            drawn = generator.draw(random, size, CHUNK)
            for row in np.flatnonzero(_of(split, drawn)):
                found.setdefault(drawn[0][row].tobytes(), (drawn[0][row], drawn[1][row]))
            if len(found) >= count:
                break
        if not found:
            raise DataError(f"{self.name}: size {size} has no row for {split}")
        symbols, asked = (np.stack(part) for part in zip(*list(found.values())[:count], strict=True))
        return type(drawn)(symbols, asked)

    def other(self, test: str) -> Generator:
        """The generator of one of its other test sets."""
        return generator_of(type(self.generator), self.name, {**self.options, **self.generator.tests[test]})

    def places(self, size: int) -> tuple[int, float]:
        """Of a row of a size in a model: its tokens, and at how many of them something is asked, on average."""
        drawn = self.generator.draw(np.random.default_rng(derive(0, "sequences", self.name, "places", size)), size, 64)
        if isinstance(drawn, Answered):
            return size + drawn.answers.shape[1], float(drawn.answers.shape[1])
        return size, float((drawn.targets != UNASKED).sum(1).mean())


def _of(split: str, drawn: Answered | Labelled) -> NDArray[np.bool_]:
    """(N,) which rows may stand in a split."""
    names = list(SPLITS)
    least = SPLITS[names[names.index(split) - 1]] if names.index(split) else 0.0
    shares = np.fromiter(_shares(drawn[0]), dtype=np.float64, count=len(drawn[0]))
    own: NDArray[np.bool_] = (least <= shares) & (shares < SPLITS[split])
    return own


def _shares(symbols: Symbols) -> Iterator[float]:
    """Where each row's digest stands among all, from 0 to 1."""
    for row in np.ascontiguousarray(symbols, dtype="<i8"):
        yield int.from_bytes(hashlib.sha256(row.tobytes()).digest()[:6], "big") / 2**48


def sequences(name: str, kind: type[Generator], options: Mapping[str, Any], package: str) -> Sequences:
    """A generator as a task asks for it.

    Raises:
        UnknownNameError, ConfigError: an option that it does not have, or of another value.
    """
    generator = generator_of(kind, name, options)
    digest = hashlib.sha256(json.dumps([name, dict(sorted(options.items()))]).encode())
    for text in _code(kind):
        digest.update(text.encode())
    note = f"generated by {package.partition(' ')[0]}'s code"
    told = ", ".join(f"{key} = {value}" for key, value in sorted(options.items()))
    return Sequences(name, generator, dict(options), digest.hexdigest(), f"{note} ({told})" if told else note)


def generator_of(kind: type[Generator], name: str, options: Mapping[str, Any]) -> Generator:
    """A generator with its options; what is raised as for `sequences`."""
    declared = options_of(kind, by_place=True)
    given = {}
    for key, value in options.items():
        if key not in declared:
            raise UnknownNameError(f"option of {name}", key, declared, f"data.options.{key}")
        try:
            given[key] = fitted(value, declared[key].type)
        except TypeError:
            wanted = allowed(declared[key].type)
            raise ConfigError(f"data.options.{key} = {short(value)}: {name}: must be {wanted}") from None
    try:
        return kind(**given)
    except PosencError as error:
        raise ConfigError(f"data.options of {name}: {error}") from None
    except Exception as error:  # another package's code may fail in any way
        raise PluginError(f"data.options of {name}: {type(error).__name__}: {error}") from error


def _code(kind: type[Generator]) -> list[str]:
    """The text of every file that a generator's classes and posenc's splits are written in."""
    modules = {one.__module__ for one in kind.__mro__ if issubclass(one, Generator)} | {__name__}
    files = [inspect.getsourcefile(sys.modules[module]) for module in sorted(modules)]
    return [Path(file).read_text(encoding="utf-8") for file in files if file]
