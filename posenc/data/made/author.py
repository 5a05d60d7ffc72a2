"""Who draws the parts of sentences: subjects, verbs and objects that go together, times, places, relative clauses."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from posenc.data.made.grammar import Clause, Joined, Phrase, Sentence, replace
from posenc.data.made.lexicon import ADJECTIVES, MODALS, NAMES, NOUNS, PLACES, TIMES_OF, VERBS, Dice, Verb, fits

_USUAL = tuple(verb for verb in VERBS.values() if verb.object != "that" and verb.base != "be")
_TELLING = tuple(verb.base for verb in VERBS.values() if verb.object == "that")
_ARTICLES = ("the",) * 10 + ("a",) * 5 + ("my", "my", "this", "this", "every", "two", "many")
_TENSES = ("present",) * 6 + ("past",) * 7 + ("perfect",) * 3 + ("will", *MODALS)
# Which links a main clause's tense allows, and the tense of the clause that hangs on it.
_HANGING = {
    "present": {"because": "present", "although": "perfect", "when": "present", "while": "present", "before": "present",
                "after": "perfect", "if": "present"},
    "past": {"because": "past", "although": "past", "when": "past", "while": "past", "before": "past",
             "after": "pluperfect"},
    "perfect": {"because": "perfect", "although": "present"},
    "": {"because": "present", "although": "present", "when": "present", "before": "present", "after": "perfect",
         "if": "present"},
}  # fmt: skip


def _with(clause: Clause, role: str, phrase: Phrase) -> Clause:
    return replace(clause, subject=phrase) if role == "subject" else replace(clause, object=phrase)


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


@cache
def _done_to(kind: str) -> tuple[Verb, ...]:
    """Verbs whose one object may be of a kind."""
    return tuple(verb for verb in _USUAL if verb.object and not verb.recipient and fits(kind, verb.object))


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

    def clause(self, tense: str, subject: Phrase | None = None, verbs: Sequence[Verb] = (), no: str = "") -> Clause:
        """A clause in a tense, with or without objects, a time, a place, a negation; `no`: a noun not to begin with."""
        dice = self.dice
        kind = NOUNS[subject.noun].kind if subject else ""
        verb = dice.one([verb for verb in verbs if not kind or fits(kind, verb.subject)] if verbs else _done_by(kind))
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

    def related(self, phrase: Phrase, tense: str) -> Phrase:
        """The phrase with a relative clause, in which it acts or is acted on."""
        kind, dice = NOUNS[phrase.noun].kind, self.dice
        objects = _done_to(kind)
        if fits(kind, "being") and (not objects or dice.chance(0.5)):
            return replace(phrase, relative=replace(self.clause(tense, phrase), gap="subject", passive=False, time=""))
        clause = replace(self.clause(tense, verbs=objects), object=phrase, gap="object", place="", time="")
        return replace(phrase, relative=clause)

    def state(self, tense: str, subject: Phrase) -> Clause:
        """A clause that says what somebody or something is like."""
        quality = self.adjectives(subject.noun, 1)[0]
        negated = subject.article == "the" and self.dice.chance(0.2)
        return Clause(replace(subject, adjectives=()), "be", quality=quality, tense=tense, negated=negated)

    def hanging(self, link: str, tense: str, about: Phrase) -> Clause:
        """A clause to hang on one whose subject is given; often it goes on about that."""
        again = replace(about, pronoun=True, relative=None)
        subject = again if about.article != "every" and self.dice.chance(0.5) else None
        if link in ("because", "although", "if") and subject and self.dice.chance(0.4):
            return self.state(tense, subject)
        clause = replace(self.clause(tense, subject, no=about.noun), time="")
        return clause if link in ("because", "although", "if", "that") else replace(clause, negated=False)

    def question(self, tense: str) -> Clause:
        """A question for yes or no, or for one of the roles."""
        clause = replace(self.clause(tense), question=True)
        gaps = ["", "", "place", "time"]
        gaps += ["object"] if clause.object else []
        gaps += ["recipient"] if clause.recipient and not clause.passive else []
        gaps += [] if clause.passive else ["subject"]
        gap = self.dice.one(gaps)
        topic = clause.object if clause.passive else clause.subject
        if topic and gap == clause.topic:
            clause = _with(clause, gap, replace(topic, plural=False))
        clause = replace(clause, gap=gap, negated=clause.negated and not gap)
        return replace(clause, time="" if gap == "time" else clause.time, place="" if gap == "place" else clause.place)

    def sentence(self) -> Sentence:
        """Any sentence that the grammar knows."""
        dice, roll = self.dice, self.dice.below(100)
        tense = dice.one(_TENSES)
        if roll < 12:
            return self.question(tense)
        if roll < 20:
            subject = self.phrase(self.noun("being"))
            return self.state(dice.one(("present", "past")), subject)
        main = self.clause(tense)
        if roll < 28:
            return Joined(main, dice.one(("and", "but")), self.clause(tense))
        if roll < 40:
            who = self.phrase(self.noun("person"))
            tense = dice.one(("present", "past"))
            said = self.hanging("that", dice.one(("past", "pluperfect")) if tense == "past" else dice.one(_TENSES), who)
            return Clause(who, dice.one(_TELLING), tense=tense, link="that", clause=said)
        if roll < 65:
            return self.linked(main)
        if roll < 78 and main.object:
            tense = tense if tense in ("present", "past", "perfect") else "present"
            role = dice.one(("subject", "object"))
            phrase = main.subject if role == "subject" else main.object
            main = _with(main, role, self.related(phrase, tense)) if phrase.noun not in NAMES else main
        elif roll > 92 and main.subject.article == "the":
            also = self.phrase(self.noun("person", main.subject.noun), described=0.2)
            main = _with(main, "subject", replace(main.subject, also=also))
        fronts = [slot for slot in ("time", "place") if getattr(main, slot)]
        return replace(main, first=dice.one(fronts) if fronts and dice.chance(0.5) else "")

    def linked(self, main: Clause) -> Clause:
        """A main clause with another hanging on it, after it or in front of it."""
        links = _HANGING.get(main.tense, _HANGING[""])
        link = self.dice.one(list(links))
        # "when" in the past is told of a single time.
        time = "" if link == "when" and main.time.startswith("every") else main.time
        hanging = self.hanging(link, links[link], main.subject)
        main = replace(main, link=link, passive=False, time=time)
        if main.negated or self.dice.chance(0.6):
            return replace(main, clause=hanging)
        if hanging.subject.pronoun:  # the name comes first, whichever clause it stands in
            hanging = replace(hanging, subject=main.subject)
            main = replace(main, subject=replace(main.subject, pronoun=True))
        return replace(main, first="clause", clause=hanging)
