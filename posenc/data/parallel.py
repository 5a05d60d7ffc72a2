"""Sentences in English and German: WMT14 and Multi30k."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import zip_longest
from pathlib import Path

from posenc.common.errors import DataError
from posenc.data import hub
from posenc.data.corpus import Corpus, File, Row, by_split, check_folder, counted, find, identities, keep, need, stream

FIELDS = ("source", "target")

Stems = Mapping[str, Sequence[Sequence[str]]]

# By split: the names under which a release has it, in the order in which they are preferred. Those of one name
# that lie in several files follow each other. A side is NAME.en and NAME.de, or WMT's SGML.
WMT14_STEMS: Stems = {
    "train": [["train"], ["europarl-v7.de-en", "commoncrawl.de-en", "news-commentary-v9.de-en"]],
    "validation": [["newstest2013"], ["valid"], ["val"], ["dev"], ["newstest2012"]],
    "test": [["newstest2014"], ["test"], ["newstest2014-deen"]],
}
# Stanford's files, or WMT's archives unpacked in one folder; "test" holds the filtered newstest2014.
WMT14_PLACES = ["wmt14", "wmt14/training", "wmt14/dev", "wmt14/test-full", "wmt14/test", "wmt14.en-de"]
# WMT's own files without the pairs that have an empty side, or Stanford's copy, which was cleaned further. The
# filtered newstest2014 has 2,737 rows: a score on it is not one on the whole, so it is no alternative.
WMT14_ROWS = {"train": (4_508_785, 4_468_840), "validation": (3000,), "test": (3003,)}
WMT14_ADVICE = (
    "put train.en, train.de and newstest2013 and newstest2014 of both (nlp.stanford.edu/projects/nmt),"
    " or WMT14's own files (statmt.org/wmt14), in DIR/wmt14"
)

MULTI30K_STEMS: Stems = {
    "train": [["train"]],
    "validation": [["val"], ["valid"]],
    "test": [["test_2016_flickr"], ["test2016"], ["test"]],
}
MULTI30K_PLACES = ["multi30k", "multi30k/data/task1/raw", "multi30k-dataset/data/task1/raw"]
MULTI30K_ROWS = {"train": (29_000,), "validation": (1014,), "test": (1000,)}
MULTI30K_ADVICE = (
    "put train, val and test_2016_flickr, each .en.gz and .de.gz"
    " (github.com/multi30k/dataset, data/task1/raw), in DIR/multi30k"
)

SEGMENT = re.compile(r"<seg id=\"[^\"]*\">(.*)</seg>")
COMPOUND = "##AT##-##AT##"  # what Stanford's copy has for a hyphen inside a word


@lru_cache(maxsize=1)
def wmt14(folder: Path | None) -> Corpus:
    """WMT14 English to German: fields "source" and "target".

    Training pairs with an empty side are left out and counted: WMT's raw files have them.

    Raises:
        DataError: files are missing, damaged or do not match.
    """
    return _read("wmt14", folder, WMT14_PLACES, WMT14_STEMS, WMT14_ROWS, WMT14_ADVICE, gaps=True)


@lru_cache(maxsize=1)
def multi30k(folder: Path | None) -> Corpus:
    """Multi30k's first task, English to German, tested on Flickr 2016: fields "source" and "target".

    Raises:
        DataError: files are missing, damaged or do not match.
    """
    return _read("multi30k", folder, MULTI30K_PLACES, MULTI30K_STEMS, MULTI30K_ROWS, MULTI30K_ADVICE, gaps=False)


def _read(
    name: str,
    folder: Path | None,
    places: Sequence[str],
    stems: Stems,
    official: Mapping[str, tuple[int, ...]],
    advice: str,
    gaps: bool,
) -> Corpus:
    check_folder(folder)
    files = {split: _files(folder, places, alternatives) for split, alternatives in stems.items()}
    present = [split for split, pairs in files.items() if pairs]
    if not present:
        looked = [f"{places[0]}/{alternatives[0][0]}.en" for alternatives in stems.values()]
        (fetched,), note = hub.fetch(name, folder, looked, advice)

        def hubs(notes: list[str]) -> Iterator[tuple[str, Row]]:
            notes.append(note)
            return by_split(fetched)

        return keep(name, FIELDS, tuple(stems), [note, fetched.identity], hubs, official)
    for split, pairs in files.items():
        if not pairs:
            names = " or ".join(f"{alternative[0]}.en" for alternative in stems[split])
            raise DataError(f"{name}: {files[present[0]][0][0]} is there, but no {split} split ({names}): {advice}")

    def read(notes: list[str]) -> Iterator[tuple[str, Row]]:
        compound = False
        for split, pairs in files.items():
            left_out: Counter[str] = Counter()
            for sides in pairs:
                for pair in side_by_side(*sides, gaps and split == "train", left_out):
                    compound = compound or (split == "train" and COMPOUND in pair[0])
                    yield split, pair
            notes += counted(left_out)
        if compound:
            notes.append(f"tokenised text ({COMPOUND}): sacreBLEU wants plain text")

    all_files = [[split, [identities(sides) for sides in pairs]] for split, pairs in files.items()]
    return keep(name, FIELDS, tuple(stems), [all_files, gaps], read, official)


def _files(
    folder: Path | None, places: Sequence[str], alternatives: Sequence[Sequence[str]]
) -> list[tuple[File, File]]:
    """The pairs of files of one split; none where no alternative is there."""
    for stems in alternatives:
        sides = [([f"{stem}.en", f"{stem}-src.en.sgm"], [f"{stem}.de", f"{stem}-ref.de.sgm"]) for stem in stems]
        found = [find(folder, places, names) for pair in sides for names in pair]
        one = next((file for file in found if file is not None), None)
        if one is not None:  # then all of them must be there
            return [
                (need(folder, places, english, one), need(folder, places, german, one)) for english, german in sides
            ]
    return []


def side_by_side(english: File, german: File, gaps: bool, left_out: Counter[str]) -> Iterator[Row]:
    """Their sentences side by side; pairs without text are counted in `left_out`."""
    counts = [0, 0]
    for number, pair in enumerate(zip_longest(_sentences(english), _sentences(german)), 1):
        counts = [count + (side is not None) for count, side in zip(counts, pair, strict=True)]
        if None in pair:  # all the rest of the longer one is read, to say how many there are
            continue
        empty = [not side.strip() for side in pair]
        if not any(empty):
            yield pair
        elif all(empty):  # a blank line at the end of both, as in some copies
            left_out[f"pairs of blank lines left out of {english.path.name}"] += 1
        elif gaps:  # as every loader of WMT14 does
            left_out[f"pairs with one empty side left out of {english.path.name}"] += 1
        else:
            file = english if empty[0] else german
            kind = "segment" if _sgml(file) else "line"
            raise DataError(f"{file}, {kind} {number}: empty, and the other side is {pair[empty.index(False)]!r}")
    if counts[0] != counts[1]:
        raise DataError(f"{english} has {counts[0]:,} sentences and {german} {counts[1]:,}: a pair is one line of each")


def _sgml(file: File) -> bool:
    return ".sgm" in (file.member or file.path.name)


def _sentences(file: File) -> Iterator[str]:
    if not _sgml(file):
        yield from stream(file)
        return
    # By pattern and as written, entities too: WMT's files are no proper XML, and so sacreBLEU reads them.
    for number, line in enumerate(stream(file), 1):
        if "<seg" in line:
            match = SEGMENT.search(line)
            if match is None:
                raise DataError(f"{file}, line {number}: a segment that does not end on its line")
            yield match[1].strip()
