"""Sentences as small trees, drawn from a seed, and the two orders they are written in: English and German."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

from posenc.data.made import lexicon
from posenc.data.made.lexicon import ADJECTIVES, MODALS, NAMES, NOUNS, PLACES, TIMES, TIMES_OF, VERBS, Dice, Verb, fits


@dataclass(frozen=True)
class Phrase:
    """A noun phrase: `the old dog that sleeps`, `Anna`, `it`, `the dog and the cat`.

    Attributes:
        article: the, a, no, this, every, my, two, many, or "" for names and what has none.
        pronoun: stands as he, she, it or they.
        relative: a clause about it, whose `gap` says which place of it the noun takes.
        also: a second noun phrase, joined by "and".
    """

    noun: str
    article: str = "the"
    adjectives: tuple[str, ...] = ()
    plural: bool = False
    pronoun: bool = False
    relative: Clause | None = None
    also: Phrase | None = None

    @property
    def many(self) -> bool:
        """Whether the verb beside it is plural."""
        return self.plural or self.also is not None


@dataclass(frozen=True)
class Clause:
    """A clause by its roles: in the passive, `subject` is still the one who acts.

    Attributes:
        verb: a verb's English base; `be` takes `quality`, an adjective.
        tense: present, past, perfect, pluperfect, will, or one of MODALS.
        shifted: `gives the child the book` instead of `gives the book to the child`; German has one order for both.
        first: what stands in front instead of the subject: time, place or clause.
        link: because, although, when, while, before, after, if or that: joins `clause`.
        question: asks for what `gap` names, or for yes or no.
        gap: the role that is asked for, or that a relative clause's noun takes.
    """

    subject: Phrase
    verb: str
    object: Phrase | None = None
    recipient: Phrase | None = None
    quality: str = ""
    tense: str = "past"
    time: str = ""
    place: str = ""
    negated: bool = False
    passive: bool = False
    shifted: bool = False
    first: str = ""
    link: str = ""
    clause: Clause | None = None
    question: bool = False
    gap: str = ""

    @property
    def topic(self) -> str:
        """The role that the verb agrees with."""
        return "object" if self.passive else "subject"


@dataclass(frozen=True)
class Joined:
    """Two main clauses with `and` or `but` between them."""

    left: Clause
    word: str
    right: Clause


Sentence = Clause | Joined
Part = TypeVar("Part", Phrase, Clause)


def replace(part: Part, **changes: Any) -> Part:
    """As `dataclasses.replace`, which takes three times as long; sentences change their parts often."""
    assert changes.keys() <= vars(part).keys(), changes
    changed = object.__new__(type(part))
    vars(changed).update(vars(part), **changes)
    return changed


_FINITE = {
    "can": ("kann", "können"), "should": ("soll", "sollen"), "may": ("darf", "dürfen"), "have to": ("muss", "müssen"),
    "want to": ("will", "wollen"), "will": ("wird", "werden"),
}  # fmt: skip
_LINKS = {"because": "weil", "although": "obwohl", "while": "während", "before": "bevor", "after": "nachdem",
          "if": "wenn", "that": "dass"}  # fmt: skip
_WHO = {"nominative": "wer", "accusative": "wen", "dative": "wem"}


def _written(sentence: Sentence, clause: Callable[[Clause], list[str]], joins: dict[str, list[str]]) -> str:
    if isinstance(sentence, Joined):
        words, end = [*clause(sentence.left), *joins[sentence.word], *clause(sentence.right)], "."
    else:
        words, end = clause(sentence), "?" if sentence.question else "."
    text = " ".join([word for word in words if word])
    if "," in text:
        text = re.sub(r"( ,)+", ",", text).strip(" ,")
    return text[0].upper() + text[1:] + end


def english(sentence: Sentence) -> str:
    """The sentence in English."""
    return _written(sentence, _english_clause, {"and": [",", "and"], "but": [",", "but"]})


def german(sentence: Sentence) -> str:
    """The sentence in German, in German word order."""
    return _written(sentence, _german_clause, {"and": ["und"], "but": [",", "aber"]})


def english_phrase(phrase: Phrase, subject: bool = False) -> list[str]:
    """The words of an English noun phrase."""
    noun = NOUNS[phrase.noun]
    if phrase.pronoun:
        group = 3 if phrase.many else {"man": 0, "woman": 1}.get(noun.kind, 2)
        return [("he", "she", "it", "they")[group] if subject else ("him", "her", "it", "them")[group]]
    words = [*phrase.adjectives, noun.plural if phrase.plural else noun.word]
    article = phrase.article
    if article == "a":
        article = "" if phrase.plural else "an" if words[0][0] in "aeiou" else "a"
    elif article == "this" and phrase.plural:
        article = "these"
    if phrase.relative:
        gap = phrase.relative.gap
        person = fits(noun.kind, "person")
        word = "that" if not person else "who" if gap == phrase.relative.topic else "whom"
        words += [word, *_english_clause(phrase.relative)]
    if phrase.also:
        words += ["and", *english_phrase(phrase.also, subject)]
    return [article, *words] if article else words


def _english_clause(clause: Clause) -> list[str]:
    """Subject, verb, objects, place, time; a question turns the first two round."""
    roles = {"subject": clause.subject, "object": clause.object, "recipient": clause.recipient}
    topic = roles.pop(clause.topic)
    assert topic is not None, clause
    asked = clause.question and clause.gap != clause.topic
    verbs = lexicon.english_verb(VERBS[clause.verb], clause.tense, topic.many, clause.passive, clause.negated, asked)
    said = {name: english_phrase(phrase) for name, phrase in roles.items() if phrase and name != clause.gap}
    given = said.get("recipient", [])
    to = ["to"] if clause.recipient and (given or clause.gap == "recipient") else []
    if clause.shifted and given and clause.gap != "object" and not clause.passive:
        rest = given + said.get("object", [])
    else:
        rest = said.get("object", []) + to + given
    if clause.passive and "subject" in said:
        rest += ["by", *said["subject"]]
    place, time = ("" if clause.first == "place" else clause.place), ("" if clause.first == "time" else clause.time)
    rest = [*rest, clause.quality, *(text for gap, text in (("place", place), ("time", time)) if gap != clause.gap)]
    about = [clause.link, *_english_clause(clause.clause)] if clause.clause else []
    named = [] if clause.gap == clause.topic else english_phrase(topic, subject=True)
    if asked:
        word = {"": [], "place": ["where"], "time": ["when"]}.get(clause.gap) or _english_who(roles.get(clause.gap))
        return [*word, verbs[0], *named, *verbs[1:], *rest, *about]
    if clause.question:
        named = _english_who(topic)
    front = {"time": [clause.time], "place": [clause.place], "clause": [*about, ","]}.get(clause.first, [])
    return [*front, *named, *verbs, *rest, *(about if clause.first != "clause" else [])]


def _english_who(phrase: Phrase | None) -> list[str]:
    return ["who" if fits(NOUNS[phrase.noun].kind, "being") else "what"] if phrase else []


def german_phrase(phrase: Phrase, case: str) -> list[str]:
    """The words of a German noun phrase in its case."""
    noun = NOUNS[phrase.noun]
    group = "plural" if phrase.plural else noun.gender
    if phrase.pronoun:
        return [lexicon.german_pronoun("plural" if phrase.many else group, case)]
    words = [lexicon.german_determiner(phrase.article, group, case)]
    words += [lexicon.german_adjective(word, phrase.article, group, case) for word in phrase.adjectives]
    words.append(lexicon.german_noun(noun, phrase.plural, case))
    if phrase.relative:
        pronoun = lexicon.german_pronoun(group, _gap_case(phrase.relative), relative=True)
        words += [",", pronoun, *_german_clause(phrase.relative, last=True), ","]
    if phrase.also:
        words += ["und", *german_phrase(phrase.also, case)]
    return words


def _german_verbs(clause: Clause, plural: bool) -> tuple[str, list[str]]:
    """The finite verb, and the participles and infinitives at the clause's end."""
    verb, tense = VERBS[clause.verb], clause.tense
    infinitive = verb.prefix + verb.infinitive
    if tense in _FINITE:
        return _FINITE[tense][plural], [verb.german_participle, "werden"] if clause.passive else [infinitive]
    if tense in ("perfect", "pluperfect"):
        if clause.passive or verb.auxiliary == "sein":
            finite = ("ist", "sind") if tense == "perfect" else ("war", "waren")
        else:
            finite = ("hat", "haben") if tense == "perfect" else ("hatte", "hatten")
        return finite[plural], [verb.german_participle, *(["worden"] if clause.passive else [])]
    if clause.passive:
        return (("wird", "werden") if tense == "present" else ("wurde", "wurden"))[plural], [verb.german_participle]
    if tense == "past":
        return lexicon.german_preterite(verb, plural), []
    return ("sind" if clause.verb == "be" else verb.infinitive) if plural else verb.present, []


def _gap_case(clause: Clause) -> str:
    if clause.gap == clause.topic:
        return "nominative"
    return "dative" if clause.gap == "recipient" else VERBS[clause.verb].case


def _by(words: list[str]) -> list[str]:
    return ["vom", *words[1:]] if words[0] == "dem" else ["von", *words]


def _german_clause(clause: Clause, last: bool = False) -> list[str]:
    """Verb second, or last in a clause that hangs on another; in between time, objects, `nicht`, place."""
    verb = VERBS[clause.verb]
    topic = clause.object if clause.passive else clause.subject
    assert topic is not None, clause
    finite, tail = _german_verbs(clause, topic.many)
    thing, refused = None if clause.passive else clause.object, clause.negated
    plain = thing and not thing.pronoun and thing.noun not in NAMES and clause.gap != "object"
    if refused and thing and plain and thing.article in ("a", ""):
        thing, refused = replace(thing, article="no"), False  # "not a" is "kein"
    said: dict[str, list[str]] = {clause.topic: german_phrase(topic, "nominative")}
    if thing:
        said["object"] = german_phrase(thing, verb.case)
    if clause.recipient:
        said["recipient"] = german_phrase(clause.recipient, "dative")
    if clause.passive:
        said["subject"] = _by(german_phrase(clause.subject, "dative"))
    said.pop(clause.gap, None)
    said |= {"time": [TIMES.get(clause.time, "")], "place": [PLACES.get(clause.place, "")]}
    about = []
    if clause.clause:
        link = ("als" if clause.clause.tense == "past" else "wenn") if clause.link == "when" else _LINKS[clause.link]
        about = [",", link, *_german_clause(clause.clause, last=True), ","]
    front = clause.first or clause.topic
    if clause.question:
        before = _german_who(clause)
    elif last:
        before = []
    else:
        before = about if front == "clause" else said.pop(front)
    objects = ["object", "recipient"]
    pronouns = [name for name in objects if name in said and (p := getattr(clause, name)) and p.pronoun]
    agent = ["subject"] if clause.passive else []
    order = [clause.topic, *pronouns, "time", *(name for name in ("recipient", "object") if name not in pronouns)]
    # "nicht" stands before what says by whom, where and how, and after the objects.
    order += ["nicht", *agent, "place", "quality"]
    said["nicht"] = ["nicht"] if refused else []
    said["quality"] = [ADJECTIVES[clause.quality].alone] if clause.quality else []
    middle = [word for name in dict.fromkeys(order) for word in said.get(name, [])]
    after = [] if front == "clause" else about
    if last:
        return [*middle, *tail, (verb.prefix if not tail else "") + finite, *after]
    return [*before, finite, *middle, *(tail or [verb.prefix]), *after]


def _german_who(clause: Clause) -> list[str]:
    if clause.gap in ("", "time", "place"):
        return [{"": "", "time": "wann", "place": "wo"}[clause.gap]]
    kind = NOUNS[getattr(clause, clause.gap).noun].kind
    return [_WHO[_gap_case(clause)] if fits(kind, "being") else "was"]


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
