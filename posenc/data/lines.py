"""Texts whose perplexity is published by word: WikiText and the Penn Treebank, a line a row.

Their authors' files have tokens between spaces, and published figures take a line's end for one more, `<eos>`: of
WikiText's test that is 241,211 words and 4,358 lines, together 245,569. A row's end is counted so here too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from posenc.data import hub
from posenc.data.corpus import Corpus, Row, check_folder, find, identities, keep, need, stream

FIELDS = ("text",)
FILES = {"train": "train", "validation": "valid", "test": "test"}
"""What the releases call our splits."""


@dataclass(frozen=True)
class Release:
    """A text as its authors publish it.

    Attributes:
        places: folders, or zip archives, under DIR. file: its files' name, with the split in it.
        lines: of its splits. words: of its splits, `<eos>` too, as its paper has them.
    """

    name: str
    places: tuple[str, ...]
    file: str
    lines: Mapping[str, int]
    words: Mapping[str, int]
    advice: str

    def read(self, folder: Path | None) -> Corpus:
        """The corpus: field "text", a line a row without the spaces at its ends; blank lines are rows too.

        Raises:
            DataError: files are missing, damaged or not UTF-8.
        """
        check_folder(folder)
        names = {split: self.file.format(written) for split, written in FILES.items()}
        first = next((found for name in names.values() if (found := find(folder, self.places, [name]))), None)
        if first is None:
            hub.fetch(self.name, folder, [f"{self.places[0]}/{name}" for name in names.values()], self.advice)
        files = {split: need(folder, self.places, [name], first) for split, name in names.items()}

        def rows(notes: list[str]) -> Iterator[tuple[str, Row]]:
            found: Counter[str] = Counter()
            for split, file in files.items():
                for line in stream(file):
                    found[split] += len(line.encode().split()) + 1
                    yield split, (line.strip(" "),)
            notes += [
                f"{found[split]:,} {split} words where the release has {words:,}"
                for split, words in self.words.items()
                if found[split] != words
            ]

        official = {split: (lines,) for split, lines in self.lines.items()}
        made_from = [identities(files.values()), dict(self.words)]
        corpus = keep(self.name, FIELDS, tuple(FILES), made_from, rows, official)
        return replace(corpus, ends_are_words=True)


HELD_OUT = {"validation": 3_760, "test": 4_358}, {"validation": 217_646, "test": 245_569}
"""Lines and words of WikiText's, the same in both sizes."""


def _wikitext(size: str, raw: str, lines: int, words: int) -> Release:
    """Merity et al. 2016, arXiv:1609.07843, table 1."""
    name = f"wikitext-{size}{raw}"
    file = f"wiki.{{}}.{'raw' if raw else 'tokens'}"
    advice = f"put the authors' {file.format('train')}, valid and test in DIR/{name}, or {name}-v1.zip in DIR"
    return Release(
        name, (name, f"{name}-v1"), file, {"train": lines, **HELD_OUT[0]}, {"train": words, **HELD_OUT[1]}, advice
    )


def _reader(release: Release) -> Callable[[Path | None], Corpus]:
    """What the table of sources calls: reads a release once a process."""
    return lru_cache(maxsize=1)(release.read)


wikitext_2 = _reader(_wikitext("2", "", 36_718, 2_088_628))
wikitext_2_raw = _reader(_wikitext("2", "-raw", 36_718, 2_088_628))
wikitext_103 = _reader(_wikitext("103", "", 1_801_350, 103_227_021))
wikitext_103_raw = _reader(_wikitext("103", "-raw", 1_801_350, 103_227_021))
ptb = _reader(
    Release(
        "ptb",
        ("ptb", "simple-examples/data", "simple-examples"),
        "ptb.{}.txt",
        {"train": 42_068, "validation": 3_370, "test": 3_761},
        {"train": 929_589, "validation": 73_760, "test": 82_430},
        "put Mikolov's ptb.train.txt, ptb.valid.txt and ptb.test.txt in DIR/ptb",
    )
)
"""Mikolov's Penn Treebank (Mikolov et al. 2010): 10,000 words, all others <unk>, numbers N."""
