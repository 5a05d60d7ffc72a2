"""Rows for the tasks, made from a seed: documents, translations, and pairs whose label only the order of words tells.

Every row is drawn together with its counterparts of the other labels, and is kept only where all of them hold the same
words on the same side: a model that sees bags of words cannot beat a guess. Pairs are told in few words and in one form
each, so that some hundred steps of a small model learn what the order says: in a rich language they learn nothing, and
a comparison of scores that all stand at chance says nothing of encodings.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from itertools import chain
from operator import eq

from posenc.data.made import lexicon
from posenc.data.made.author import Author
from posenc.data.made.grammar import Clause, Joined, Phrase, Sentence, english, german, replace
from posenc.data.made.lexicon import ACTS, BAD, BEINGS, DEEDS, GOOD, NAMES, NOUNS, WHEN, WHERE, Dice, T, fits

Row = tuple[str, ...]
_FEW = BEINGS[:8]  # who stands in pairs
# {1} is the judgement that holds in the end, {0} the one that does not.
_OPINIONS = (
    "I thought the {it} would be {0}, but it was {1}.",
    "I knew the {it} would be {1}, although they called it {0}.",
    "The {it} was not {0} but {1}.",
    "The {it} was {1} but not {0}.",
    "At first the {it} was {0}, but in the end it was {1}.",
    "In the end the {it} was {1}, although at first it was {0}.",
    "Although the {it} looked {0} at first, it was {1} in the end.",
    "The {it} was more {1} than {0}.",
    "The {it} was less {0} than {1}.",
    "They said the {it} was {0}, but I found it {1}.",
    "Nobody found the {it} {0} and everybody found it {1}.",
    "Everybody found the {it} {1} and nobody found it {0}.",
)


def _rows(seed: int, task: str, n: int, labels: int, make: Callable[[Dice], list[Row]]) -> list[tuple[Row, int]]:
    """n different rows with balanced labels; `make` gives one for each label, of which one is kept."""
    dice = Dice(seed, "generated", task)
    seen: set[Row] = set()
    rows: list[tuple[Row, int]] = []
    waiting: list[int] = []
    tries = 0
    while len(rows) < n:
        waiting = waiting or dice.some(range(labels), labels)
        choices = make(dice)
        row = choices[waiting[-1]]
        bags = [[sorted(re.findall(r"\w+|[^\w\s]", side)) for side in choice] for choice in choices]
        tries += 1
        # Were a row kept whose counterpart is none (twice the same text), its form alone would tell its label.
        fit = len(set(choices)) == bags.count(bags[0]) == labels and all(len(set(c)) == len(c) for c in choices)
        if not fit or (row in seen and tries < 1000):  # a space that is used up is not searched for ever
            continue
        seen.add(row)
        rows.append((row, waiting.pop()))
        tries = 0
    return rows


def _distinct(n: int, make: Callable[[], T]) -> list[T]:
    found: dict[T, None] = {}
    while len(found) < n:
        found[make()] = None
    return list(found)


def _being(dice: Dice, noun: str) -> Phrase:
    return Phrase(noun, "the", (dice.one(lexicon.TRAITS),) if dice.chance(0.4) else ())


def _deeds(dice: Dice, count: int, tense: str = "past", alone: float = 0.0) -> list[Clause]:
    """Clauses in which different beings do something to each other, or (`alone`: how often) each by itself."""
    beings = [_being(dice, noun) for noun in dice.some(BEINGS, 2 * count)]
    if dice.chance(alone):
        return [Clause(who, verb, tense=tense) for who, verb in zip(beings, dice.some(ACTS, count), strict=False)]
    pairs = zip(beings[::2], dice.some(DEEDS, count), beings[1::2], strict=True)
    return [Clause(who, verb, whom, tense=tense) for who, verb, whom in pairs]


def _placed(dice: Dice, clause: Clause) -> Clause:
    time, place = (dice.one(pool) if dice.chance(0.5) else "" for pool in (WHEN, WHERE))
    return replace(clause, time="" if clause.tense != "past" else time, place=place)


def _voiced(dice: Dice, clause: Clause) -> Clause:
    return replace(clause, passive=clause.object is not None and dice.chance(0.5))


def _event(dice: Dice) -> tuple[Clause, Clause]:
    """Who did what to whom, and the same with the two exchanged."""
    one, two = map(Phrase, dice.some(_FEW, 2))
    event = Clause(one, dice.one(DEEDS), two, place=dice.one(WHERE))
    return event, replace(event, subject=two, object=one)


def _paraphrase(dice: Dice) -> list[Row]:
    """An event and it in the passive; then the passive of the exchanged one. Either sentence may stand first."""
    event, turned = _event(dice)
    told, same, other = english(event), *(english(replace(clause, passive=True)) for clause in (event, turned))
    return [(other, told), (same, told)] if dice.chance(0.5) else [(told, other), (told, same)]


def _told(first: Clause, then: Clause, word: str) -> str:
    """That one thing came before the other, told with `before` or `after`."""
    main, hanging = (first, then) if word == "before" else (then, first)
    return english(replace(main, link=word, clause=hanging))


def _entailment(dice: Dice) -> list[Row]:
    """What came first: of two events, of two that have exchanged who acts, and of the two in the other order."""
    left, right = (Clause(Phrase(who), act) for who, act in zip(dice.some(_FEW, 2), dice.some(ACTS, 2), strict=True))
    crossed = [replace(left, subject=right.subject), replace(right, subject=left.subject)]
    claims = ((left, right), dice.some(crossed, 2), (right, left))
    return [(_told(left, right, "before"), _told(first, then, "after")) for first, then in claims]


def _answer(dice: Dice) -> list[Row]:
    """Who did it: the event, or the exchanged one."""
    event, turned = _event(dice)
    asked = english(replace(event, question=True, gap="subject", place=""))
    return [(asked, english(event)), (asked, english(turned))]


def _sentiment(dice: Dice) -> list[Row]:
    it, good, bad, template = (dice.one(pool) for pool in (lexicon.SHOWN, GOOD, BAD, _OPINIONS))
    if dice.chance(0.1):  # what follows "but" decides between two of a kind
        one, two = dice.some(dice.one((GOOD, BAD)), 2)
        texts = [f"The {it} was {one} but not {two}.", f"The {it} was not {one} but {two}."]
        return [(text,) for text in (texts if one in GOOD else texts[::-1])]
    if "than" not in template:
        for slot in ("{0}", "{1}"):
            template = template.replace(slot, dice.one(("", "", "", "very ", "really ", "rather ")) + slot)
    return [(template.format(good, bad, it=it),), (template.format(bad, good, it=it),)]


def paraphrases(seed: int, n: int) -> list[tuple[str, str, int]]:
    """Two sentences, and 1 where the second means what the first does, else 0."""
    return [(row[0], row[1], label) for row, label in _rows(seed, "paraphrases", n, 2, _paraphrase)]


def entailments(seed: int, n: int) -> list[tuple[str, str, int]]:
    """A premise, a claim, and 0 where it follows, 1 where it is open, 2 where it is denied."""
    return [(row[0], row[1], label) for row, label in _rows(seed, "entailments", n, 3, _entailment)]


def answers(seed: int, n: int) -> list[tuple[str, str, int]]:
    """A question, a sentence, and 0 where that answers it, else 1."""
    return [(row[0], row[1], label) for row, label in _rows(seed, "answers", n, 2, _answer)]


def sentiments(seed: int, n: int) -> list[tuple[str, int]]:
    """A sentence, and 1 where it praises in the end, 0 where it does not."""
    return [(row[0], label) for row, label in _rows(seed, "sentiments", n, 2, _sentiment)]


def _similar(dice: Dice) -> tuple[str, str, float]:
    """Two sentences of two events each; of the second's facts so many are those of the first as the score says."""
    first = [dice.some(_FEW, 4), dice.some(DEEDS[:8], 2), dice.some(WHERE[:6], 2)]
    wanted, agreed = dice.one((0, 1, 2, 3, 4, 5, 6, 8)), -1
    while agreed != wanted:  # seven facts cannot agree without the eighth
        second = [dice.some(column, len(column)) for column in first]
        agreed = sum(map(eq, chain(*first), chain(*second)))
    texts = []
    for people, deeds, places in (first, second):
        told = zip(map(Phrase, people[::2]), deeds, map(Phrase, people[1::2]), places, strict=True)
        left, right = (Clause(who, deed, whom, place=where) for who, deed, whom, where in told)
        texts.append(english(Joined(left, "and", right)))
    return texts[0], texts[1], agreed * 5 / 8


def similarities(seed: int, n: int) -> list[tuple[str, str, float]]:
    """Two sentences, and from 0.0 to 5.0 how many of their eight facts agree: who did what to whom, and where.

    Both tell of two events with the same words. The first is held against the first, the second against the second.
    """
    return _distinct(n, partial(_similar, Dice(seed, "generated", "similarities")))


def _compared(dice: Dice) -> str:
    one, two = dice.some(BEINGS, 2)
    return f"The {one} is {dice.some(dice.one(lexicon.OPPOSITES), 2)[0]} than the {two}."


def _mentioned(dice: Dice, phrase: Phrase, known: list[Phrase]) -> Phrase:
    """With "a" and what it is like at first, with "the" later on."""
    if phrase in known:
        return phrase if dice.chance(0.4) else replace(phrase, adjectives=())
    known.append(phrase)
    return replace(phrase, article=phrase.article and "a")


def _document(dice: Dice) -> str:
    author = Author(dice)
    beings = BEINGS if dice.chance(0.5) else [word for word, noun in NOUNS.items() if fits(noun.kind, "being")]
    cast = [Phrase(w, *(("",) if w in NAMES else ("the", author.adjectives(w, 1)))) for w in dice.some(beings, 3)]
    known: list[Phrase] = []
    texts: list[str] = []
    last, count = cast[0], 3 + dice.below(4)
    while len(texts) < count:
        who, whom = dice.some(cast, 2)
        again, roll = replace(who, pronoun=True), dice.below(12)
        subject = again if who == last and who in known and dice.chance(0.7) else _mentioned(dice, who, known)
        last = who
        if roll == 0:
            said: Sentence = author.state("past", subject)
        elif roll == 1:
            thought = author.hanging("that", dice.one(("past", "perfect", "will", "can")), who)
            said = Clause(subject, dice.one(("know", "think")), tense="present", link="that", clause=thought)
        elif roll == 2:
            said = author.clause("past", subject)
        else:
            event = _placed(dice, Clause(subject, dice.one(DEEDS), _mentioned(dice, whom, known)))
            if roll < 5:
                link = dice.one(("because", "although", "before", "after", "while"))
                said = replace(event, link=link, clause=author.hanging(link, "past", who))
            elif roll < 7:
                said = Joined(event, dice.one(("and", "but")), author.clause("past", again))
            else:
                passive = roll < 9 and not subject.pronoun
                said = replace(event, passive=passive, first="time" if event.time and dice.chance(0.5) else "")
            if roll == 11:
                texts.append(english(replace(event, question=True, gap="object", time="", place="")))
        texts.append(english(said))
    return " ".join([*texts, *dice.one(((), _sentiment(dice)[0], [_compared(dice)]))])


def documents(seed: int, n: int) -> list[str]:
    """Documents of 3 to 8 English sentences about three beings, who come again under their names, as it, he or she."""
    return _distinct(n, partial(_document, Dice(seed, "generated", "documents")))


def _translation(dice: Dice) -> tuple[str, str]:
    """One event, or two of which one hangs on the other: German puts its verbs second, last or in two places."""
    if dice.chance(0.4):
        main, other = (_voiced(dice, clause) for clause in _deeds(dice, 2, alone=0.3))
        link = dice.one(("because", "although", "before", "while"))
        told = replace(main, link=link, clause=other, first=dice.one(("", "clause")))
    else:
        event = _placed(dice, _deeds(dice, 1, dice.one(("past", "past", "present", "perfect", "will", "can")))[0])
        fronts = ["", *(slot for slot in ("time", "place") if getattr(event, slot))]
        told = replace(_voiced(dice, event), first=dice.one(fronts))
    return english(told), german(told)


def translations(seed: int, n: int) -> list[tuple[str, str]]:
    """An English sentence, and it in German."""
    return _distinct(n, partial(_translation, Dice(seed, "generated", "translations")))
