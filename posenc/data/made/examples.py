"""Rows for the tasks, made from a seed: documents, translations, and pairs whose label only the order of words tells.

Every row is drawn together with its counterparts of the other labels, and is kept only where all of them hold the same
words on the same side: a model that sees bags of words cannot beat a guess.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from itertools import chain, product
from operator import eq

from posenc.data.made import lexicon
from posenc.data.made.author import Author
from posenc.data.made.grammar import Clause, Joined, Phrase, Sentence, english, german, replace
from posenc.data.made.lexicon import ACTS, BAD, BEINGS, DEEDS, GOOD, NAMES, NOUNS, WHEN, WHERE, Dice, T, fits

Row = tuple[str, ...]
Said = Sentence | str
_HOLDING = ("perfect", "will", "can")  # tenses that keep a verb's form when "not" is added
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


def _text(said: Said) -> str:
    return said if isinstance(said, str) else english(said)


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


def _turned(clause: Clause) -> Clause:
    """The other way round: who acted is acted on."""
    return replace(clause, subject=clause.object or clause.subject, object=clause.subject)


def _otherwise(dice: Dice, clause: Clause) -> Clause:
    """Not the same: the roles change places, or the adjectives alone."""
    who, whom = clause.subject, clause.object or clause.subject
    if who.adjectives == whom.adjectives or dice.chance(0.6):
        return _turned(clause)
    subject, thing = replace(who, adjectives=whom.adjectives), replace(whom, adjectives=who.adjectives)
    return replace(clause, subject=subject, object=thing)


def _crossed(dice: Dice, left: Clause, right: Clause) -> tuple[Clause, Clause]:
    """Two clauses that have exchanged who acts, or whom it is done to."""
    if left.object is None or dice.chance(0.5):
        return replace(left, subject=right.subject), replace(right, subject=left.subject)
    return replace(left, object=right.object), replace(right, object=left.object)


def _joined(word: str, left: Clause, right: Clause, turned: bool = False) -> Joined:
    return Joined(right, word, left) if turned else Joined(left, word, right)


def _told(first: Clause, then: Clause, word: str, front: bool = False) -> Clause:
    """That one thing came before the other, told with `before` or `after`."""
    main, hanging = (first, then) if word == "before" else (then, first)
    return replace(main, link=word, clause=hanging, first="clause" if front else "")


def _rewritten(dice: Dice) -> tuple[Said, ...]:
    """In the passive, or with a time or a place in front; then with the roles or the adjectives exchanged."""
    event = _placed(dice, _deeds(dice, 1, dice.one(("past", "past", "present", "perfect", "will")))[0])
    first = dice.one(["", *(slot for slot in ("time", "place") if getattr(event, slot))])
    same = replace(event, passive=dice.chance(0.6), first=first)
    return replace(event, passive=dice.chance(0.2)), same, _otherwise(dice, same)


def _exchanged(dice: Dice) -> tuple[Said, ...]:
    """Two events in the other order; then with who, whom, when or where exchanged between them."""
    left, right = (_placed(dice, clause) for clause in _deeds(dice, 2, alone=0.3))
    wrong = dice.one([
        _crossed(dice, left, right),
        (replace(left, time=right.time), replace(right, time=left.time)),
        (replace(left, place=right.place), replace(right, place=left.place)),
    ])  # fmt: skip
    return Joined(left, "and", right), Joined(right, "and", left), Joined(wrong[1], "and", wrong[0])


def _denied(dice: Dice) -> tuple[Said, ...]:
    """One thing is so and another is not, in the other order; then with the negation in the other clause."""
    left, right = (_voiced(dice, clause) for clause in _deeds(dice, 2, dice.one(_HOLDING), alone=0.3))
    not_left, not_right = replace(left, negated=True), replace(right, negated=True)
    return Joined(left, "but", not_right), Joined(not_right, "but", left), Joined(right, "but", not_left)


def _ordered(dice: Dice) -> tuple[Said, ...]:
    """One thing before or because of another, with the other word or that in front; then the two exchanged."""
    left, right = _deeds(dice, 2, alone=0.5)
    if dice.chance(0.4):
        reason, wrong = (replace(a, link="because", clause=b) for a, b in ((left, right), (right, left)))
        return reason, replace(reason, first="clause"), replace(wrong, first="clause")
    (word, other), front = dice.some(("before", "after"), 2), dice.chance(0.5)
    return _told(left, right, word), _told(left, right, other, front), _told(right, left, other, front)


def _gift(dice: Dice) -> tuple[Clause, Clause]:
    """Who gives what to whom, and the same with giver and taker exchanged."""
    giver, taker = (_being(dice, noun) for noun in dice.some(BEINGS[10:], 2))
    gift = Clause(giver, dice.one(lexicon.GIVINGS), Phrase(dice.one(lexicon.GIFTS)), taker, shifted=dice.chance(0.5))
    gift = _placed(dice, gift)
    return gift, replace(gift, subject=taker, recipient=giver)


def _given(dice: Dice) -> tuple[Said, ...]:
    """The thing before the taker, or in the passive; then giver and taker exchanged."""
    gift, wrong = _gift(dice)
    if dice.chance(0.4):
        return gift, replace(gift, passive=True), replace(wrong, passive=True)
    return gift, replace(gift, shifted=not gift.shifted), replace(wrong, shifted=not gift.shifted)


def _compared(dice: Dice) -> tuple[Said, ...]:
    """Older, told as younger; then the contrary."""
    one, two = dice.some(BEINGS, 2)
    more, less = dice.some(dice.one(lexicon.OPPOSITES), 2)
    said = ((one, more, two), (two, less, one), (one, less, two))
    return tuple(f"The {a} is {word} than the {b}." for a, word, b in said)


# Each gives a sentence, another of the same meaning, and one in the form of that other which means something else.
_REWRITES = (_rewritten, _rewritten, _rewritten, _exchanged, _denied, _ordered, _given, _compared)


def _paraphrase(dice: Dice) -> list[Row]:
    first, same, other = (_text(said) for said in dice.one(_REWRITES)(dice))
    if dice.chance(0.4):
        same, other = (
            re.sub(r"\w+", lambda match: lexicon.OTHER_WORDS.get(match[0], match[0]), text) for text in (same, other)
        )
    return [(other, first), (same, first)] if dice.chance(0.5) else [(first, other), (first, same)]


def _affirmed(dice: Dice) -> list[tuple[Said, Said]]:
    """What is so and what is not: the negation stands in one clause or the other, or it is about others."""
    left, right = (_voiced(dice, clause) for clause in _deeds(dice, 2, dice.one(_HOLDING), alone=0.3))
    open_ = (_turned(left), right) if left.object and dice.chance(0.5) else _crossed(dice, left, right)
    swapped, claimed = dice.chance(0.5), dice.chance(0.5)
    claim = replace(_voiced(dice, left), negated=not claimed)
    rows: list[tuple[Said, Said]] = []
    for (one, two), so in (((left, right), True), (open_, True), ((left, right), False)):
        one, two = replace(one, negated=so != claimed), replace(two, negated=so == claimed)
        rows.append((_joined("but", one, two, swapped), claim))
    return rows


def _sequenced(dice: Dice) -> list[tuple[Said, Said]]:
    """What came first, of the same two events or of two that have exchanged somebody."""
    left, right = _deeds(dice, 2, alone=0.6)
    word, front = dice.one(("before", "after")), dice.chance(0.5)
    premise = _told(left, right, dice.one(("before", "after")), dice.chance(0.5))
    claims = ((left, right), _crossed(dice, left, right), (right, left))
    return [(premise, _told(*claim, word, front)) for claim in claims]


def _ranked(dice: Dice) -> list[tuple[Said, Said]]:
    """Two comparisons that put three in a row, in no row, or in the contrary one."""
    names, (more, less) = dice.some(BEINGS, 3), dice.one(lexicon.OPPOSITES)
    words = (dice.one((more, less)), dice.one((more, less)))
    found: list[list[str]] = [[], [], []]
    for pairs in product(((0, 1), (1, 0), (1, 2), (2, 1)), repeat=2):
        over = {pair if word == more else pair[::-1] for pair, word in zip(pairs, words, strict=True)}
        if {*pairs[0], *pairs[1]} == {0, 1, 2}:
            label = 0 if over == {(0, 1), (1, 2)} else 2 if over == {(2, 1), (1, 0)} else 1
            a, b = (f"the {names[p[0]]} is {w} than the {names[p[1]]}" for p, w in zip(pairs, words, strict=True))
            found[label].append(f"T{a[1:]} and {b}.")
    low, word, high = dice.one(((0, more, 2), (2, less, 0)))
    claim = f"The {names[low]} is {word} than the {names[high]}."
    return [(dice.one(sentences), claim) for sentences in found]


def _believed(dice: Dice) -> list[tuple[Said, Said]]:
    """What is known is so; what is only thought may not be."""
    left, right = _deeds(dice, 2, dice.one(_HOLDING), alone=0.5)
    taken = {phrase.noun for clause in (left, right) for phrase in (clause.subject, clause.object) if phrase}
    one, two = (Phrase(noun) for noun in dice.some([noun for noun in BEINGS[10:] if noun not in taken], 2))
    swapped = dice.chance(0.5)
    rows: list[tuple[Said, Said]] = []
    for first, then, denied in (("know", "think", False), ("think", "know", False), ("know", "think", True)):
        sure = Clause(one, first, tense="present", link="that", clause=replace(left, negated=denied))
        other = Clause(two, then, tense="present", link="that", clause=replace(right, negated=not denied))
        rows.append((_joined("but", sure, other, swapped), left))
    return rows


# Each gives three pairs of a premise and a claim: it follows, it is open, it is denied.
_PROOFS = (_affirmed, _affirmed, _sequenced, _ranked, _believed)


def _entailment(dice: Dice) -> list[Row]:
    return [(_text(premise), _text(claim)) for premise, claim in dice.one(_PROOFS)(dice)]


def _asked_who(dice: Dice) -> tuple[Said, ...]:
    """Who did it, or to whom: with the roles turned round, or with the negation in this clause."""
    left, right = _deeds(dice, 2, dice.one(_HOLDING))
    gap, swapped = dice.one(("subject", "object")), dice.chance(0.5)
    asked = replace(left, question=True, gap=gap, passive=gap == "object" and dice.chance(0.5))
    left, right = _voiced(dice, left), _voiced(dice, right)
    not_left, not_right = replace(left, negated=True), replace(right, negated=True)
    wrong = (_turned(left), not_right) if dice.chance(0.5) else (not_left, right)
    return asked, _joined("but", left, not_right, swapped), _joined("but", *wrong, swapped)


def _asked_when(dice: Dice) -> tuple[Said, ...]:
    """Where or when: the other event's place or time is no answer."""
    left, right = _deeds(dice, 2, alone=0.6)
    gap, swapped, time, place = dice.one(("time", "place")), dice.chance(0.5), dice.one(WHEN), dice.one(WHERE)
    timed = replace(left, time=time), replace(right, place=place)
    placed = replace(left, place=place), replace(right, time=time)
    good, bad = (timed, placed) if gap == "time" else (placed, timed)
    return replace(left, question=True, gap=gap), _joined("and", *good, swapped), _joined("and", *bad, swapped)


def _asked_why(dice: Dice) -> tuple[Said, ...]:
    """Why: the reason stands after `because`."""
    left, right = _deeds(dice, 2, alone=0.6)
    question, front = english(replace(left, question=True)), "clause" if dice.chance(0.5) else ""
    good, bad = (replace(a, link="because", clause=b, first=front) for a, b in ((left, right), (right, left)))
    return f"Why d{question[1:]}", good, bad


def _asked_gift(dice: Dice) -> tuple[Said, ...]:
    """Who gave what to whom: giver and taker exchanged."""
    gift, wrong = _gift(dice)
    passive, gap = dice.chance(0.4), dice.one(("subject", "object", "recipient"))
    asked = replace(gift, question=True, gap=gap, time="", place="")
    return asked, replace(gift, passive=passive), replace(wrong, passive=passive)


# Each gives a question, a sentence that answers it, and one that does not.
_QUESTIONS = (_asked_who, _asked_who, _asked_when, _asked_why, _asked_gift)


def _answer(dice: Dice) -> list[Row]:
    asked, good, bad = (_text(said) for said in dice.one(_QUESTIONS)(dice))
    return [(asked, good), (asked, bad)]


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
    beings, deeds = dice.some(BEINGS, 4), dice.some(DEEDS, 2)
    first = [deeds, dice.some(WHERE, 2), dice.some(WHEN, 2), beings]
    link, wanted = dice.one(("because", "although")), dice.one((0, 1, 2, 3, 4, 5, 6, 7, 8, 10))
    agreed = -1
    while agreed != wanted:  # nine facts cannot agree without the tenth
        second = [dice.some(column, len(column)) for column in first]
        agreed = sum(map(eq, chain(*first), chain(*second)))
    fronts, texts = dice.some(("", "clause") if agreed == 10 else ("", "", "clause", "clause"), 2), []
    for (deeds, places, times, people), front in zip((first, second), fronts, strict=True):
        told = zip(deeds, places, times, people[::2], people[1::2], strict=True)
        main, other = (Clause(Phrase(a), deed, Phrase(b), place=where, time=when) for deed, where, when, a, b in told)
        texts.append(english(replace(main, link=link, clause=other, first=front)))
    return texts[0], texts[1], agreed / 2


def similarities(seed: int, n: int) -> list[tuple[str, str, float]]:
    """Two sentences, and from 0.0 to 5.0 how many of their facts agree: who, did what, to whom, where and when.

    Both tell of two events with the same words. What happened is held against what happened, and the reason against
    the reason; an event has five facts, and the score is the mean of the two.
    """
    return _distinct(n, partial(_similar, Dice(seed, "generated", "similarities")))


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
            thought = author.hanging("that", dice.one(("past", *_HOLDING)), who)
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
    return " ".join([*texts, *dice.one(((), _sentiment(dice)[0], [_text(_compared(dice)[0])]))])


def documents(seed: int, n: int) -> list[str]:
    """Documents of 3 to 8 English sentences about three beings, who come again under their names, as it, he or she."""
    return _distinct(n, partial(_document, Dice(seed, "generated", "documents")))


def _translation(author: Author) -> tuple[str, str]:
    sentence = author.sentence()
    return english(sentence), german(sentence)


def translations(seed: int, n: int) -> list[tuple[str, str]]:
    """An English sentence, and it in German."""
    return _distinct(n, partial(_translation, Author(Dice(seed, "generated", "translations"))))
