"""Documents in the forms that lm-evaluation-harness reads: English made from a seed, and questions about its order.

Of a sentence cut in two, one end is the right one and the others are the same words in another order: what a language
model knows of order, and no bag of words. Where the answer is a letter, a small model guesses.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

from posenc.data.made import examples
from posenc.data.made.lexicon import Dice

Document = dict[str, Any]
_LETTERS = "ABCD"


def _cut(dice: Dice, text: str) -> tuple[str, list[str]]:
    """The first words of a sentence, and four ends of it: the right one first."""
    words = text.rstrip(".").split()
    start, end = words[: len(words) // 2], words[len(words) // 2 :]
    ends = {" ".join(end): None}
    while len(ends) < 4:
        ends[" ".join(dice.some(end, len(end)))] = None
    return " ".join(start), [f"{one}." for one in ends]


def _questions(seed: int, n: int, kind: str) -> list[tuple[str, list[str], int]]:
    """n of them: the first words, four ends in any order, and which is right."""
    dice = Dice(seed, "generated", "questions", kind)
    found: dict[str, tuple[str, list[str], int]] = {}
    for english, _ in examples.translations(seed, 2 * n):
        if len(english.split()) < 7 or english in found:
            continue
        start, ends = _cut(dice, english)
        order = dice.some(range(4), 4)
        found[english] = start, [ends[place] for place in order], order.index(0)
    assert len(found) >= n, "sentences of seven words and more are the most of them"
    return list(found.values())[:n]


def _choices(ends: list[str]) -> dict[str, list[str]]:
    return {"text": ends, "label": list(_LETTERS)}


def _arc(start: str, ends: list[str], right: int) -> tuple[str, Document]:
    question = f"How does this end: {start}"
    return "arc/arc_easy", {"question": question, "choices": _choices(ends), "answerKey": _LETTERS[right]}


def _openbook(start: str, ends: list[str], right: int) -> tuple[str, Document]:
    about = {"question_stem": start, "choices": _choices(ends), "answerKey": _LETTERS[right]}
    return "openbookqa/openbookqa", about


def _mmlu(start: str, ends: list[str], right: int) -> tuple[str, Document]:
    about = {"question": f"How does this end: {start}", "subject": "miscellaneous", "choices": ends, "answer": right}
    return "mmlu/default/mmlu_miscellaneous", about


def _gpqa(start: str, ends: list[str], right: int) -> tuple[str, Document]:
    wrong = [end for place, end in enumerate(ends) if place != right]
    about = {f"Incorrect Answer {number}": end for number, end in enumerate(wrong, 1)}
    return "gpqa/zeroshot/gpqa_main_zeroshot", {"Question": f" {start}", "Correct Answer": ends[right], **about}


def _bbh(start: str, ends: list[str], right: int) -> tuple[str, Document]:
    told = [ends[right], ends[right - 1]][:: 1 if right < 2 else -1]
    options = "\n".join(f"({letter}) {end}" for letter, end in zip("AB", told, strict=True))
    asked = f"Which sentence has the correct adjective order?\nOptions:\n{options}"
    return "leaderboard/bbh_mc/hyperbaton", {"input": f"{start}: {asked}", "target": "(A)" if right < 2 else "(B)"}


def _of(make: Callable[[str, list[str], int], tuple[str, Document]], seed: int, n: int) -> list[tuple[str, str]]:
    made = (make(*question) for question in _questions(seed, n, make.__name__))
    return [(task, json.dumps(document)) for task, document in made]


arc_easy = partial(_of, _arc)
openbookqa = partial(_of, _openbook)
mmlu = partial(_of, _mmlu)
gpqa = partial(_of, _gpqa)
bbh = partial(_of, _bbh)


def wikitext(seed: int, n: int) -> list[tuple[str, str]]:
    """Pages of some documents each, under a title."""
    texts = examples.documents(seed, 6 * n)
    pages = ("\n".join([" = Page = ", "", *texts[6 * page : 6 * page + 6], ""]) for page in range(n))
    return [("wikitext/wikitext", json.dumps({"page": page})) for page in pages]
