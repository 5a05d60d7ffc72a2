"""Who draws the parts of sentences: subjects, verbs and objects that go together, times, places."""

from __future__ import annotations

from functools import cache

from posenc.data.made.grammar import Clause, Phrase, replace
from posenc.data.made.lexicon import ADJECTIVES, NAMES, NOUNS, PLACES, TIMES_OF, VERBS, Dice, Verb, fits

_USUAL = tuple(verb for verb in VERBS.values() if verb.object != "that" and verb.base != "be")
_ARTICLES = ("the",) * 10 + ("a",) * 5 + ("my", "my", "this", "this", "every", "two", "many")


@cache
def _nouns(kind: str) -> tuple[str, ...]:
    return tuple(word for word, noun in NOUNS.items() if fits(noun.kind, kind))


@cache
def _adjectives(kind: str) -> tuple[str, ...]:
    """What may be said of a kind of nouns."""
    return tuple(word for word, adjective in ADJECTIVES.items() if fits(kind, adjective.kind))


@cache
def _done_by(kind: str) -> tuple[Verb, ...]:
    """Verbs whose subject may be of a kind."""
    return tuple(verb for verb in _USUAL if not kind or fits(kind, verb.subject))


class Author:
    """Draws the parts of sentences, so that what is said can be said: bread is eaten, doors are opened."""

    def __init__(self, dice: Dice) -> None:
        self.dice = dice

    def noun(self, kind: str, *avoided: str) -> str:
        """A noun of a kind."""
        return self.dice.one([word for word in _nouns(kind) if word not in avoided])

    def adjectives(self, noun: str, count: int) -> tuple[str, ...]:
        """So many adjectives that go with a noun, no two of one meaning."""
        chosen = self.dice.some(_adjectives(NOUNS[noun].kind), count)
        return tuple({ADJECTIVES[word].stem: word for word in chosen}.values())

    def phrase(self, noun: str, described: float = 0.4) -> Phrase:
        """A noun with an article, perhaps with adjectives, perhaps in the plural."""
        if noun in NAMES:
            return Phrase(noun, "")
        article = self.dice.one(_ARTICLES)
        plural = article in ("two", "many") or (article != "every" and self.dice.chance(0.2))
        if not NOUNS[noun].german_plural:
            article, plural = ("" if article == "a" else "the"), False
        count = 0 if not self.dice.chance(described) else 1 + self.dice.chance(0.15)
        return Phrase(noun, article, self.adjectives(noun, count), plural)

    def clause(self, tense: str, subject: Phrase | None = None, no: str = "") -> Clause:
        """A clause in a tense, with or without objects, a time, a place, a negation; `no`: a noun not to begin with."""
        dice = self.dice
        verb = dice.one(_done_by(NOUNS[subject.noun].kind if subject else ""))
        subject = subject or self.phrase(self.noun(verb.subject, no))
        thing = self.phrase(self.noun(verb.object, subject.noun)) if verb.object else None
        recipient = self.phrase(self.noun(verb.recipient, subject.noun)) if verb.recipient else None
        group = {"present": "a", "past": "b", "pluperfect": "b", "perfect": "c"}.get(tense, "d")
        time = dice.one(TIMES_OF[group]) if dice.chance(0.45) else ""
        place = dice.one(tuple(PLACES)) if dice.chance(0.35) else ""
        whole = all(p is None or p.article not in ("every", "two", "many") for p in (subject, thing, recipient))
        passive = bool(thing) and verb.case == "accusative" and tense != "want to" and not subject.pronoun
        return Clause(
            subject, verb.base, thing, recipient, tense=tense, time=time, place=place, shifted=dice.chance(0.5),
            negated=whole and dice.chance(0.15), passive=passive and dice.chance(0.15),
        )  # fmt: skip

    def state(self, tense: str, subject: Phrase) -> Clause:
        """A clause that says what somebody or something is like."""
        quality = self.adjectives(subject.noun, 1)[0]
        negated = subject.article == "the" and self.dice.chance(0.2)
        return Clause(replace(subject, adjectives=()), "be", quality=quality, tense=tense, negated=negated)

    def hanging(self, link: str, tense: str, about: Phrase) -> Clause:
        """A clause to hang on one whose subject is given; often it goes on about that."""
        again = replace(about, pronoun=True)
        subject = again if about.article != "every" and self.dice.chance(0.5) else None
        if link in ("because", "although", "if") and subject and self.dice.chance(0.4):
            return self.state(tense, subject)
        clause = replace(self.clause(tense, subject, no=about.noun), time="")
        return clause if link in ("because", "although", "if", "that") else replace(clause, negated=False)
