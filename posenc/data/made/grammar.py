"""Sentences as small trees, drawn from a seed, and the two orders they are written in: English and German."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from posenc.data.made import lexicon
from posenc.data.made.lexicon import ADJECTIVES, NAMES, NOUNS, PLACES, TIMES, VERBS, fits


@dataclass(frozen=True)
class Phrase:
    """A noun phrase: `the old dog`, `two cats`, `Anna`, `it`.

    Attributes:
        article: the, a, no, this, every, my, two, many, or "" for names and what has none.
        pronoun: stands as he, she, it or they.
    """

    noun: str
    article: str = "the"
    adjectives: tuple[str, ...] = ()
    plural: bool = False
    pronoun: bool = False


@dataclass(frozen=True)
class Clause:
    """A clause by its roles: in the passive, `subject` is still the one who acts.

    Attributes:
        verb: a verb's English base; `be` takes `quality`, an adjective.
        tense: present, past, perfect, pluperfect, will, or one of MODALS.
        shifted: `gives the child the book` instead of `gives the book to the child`; German has one order for both.
        first: what stands in front instead of the subject: time, place or clause.
        link: because, although, when, while, before, after, if or that: joins `clause`.
        question: asks for what `gap` names, or for yes or no; in English alone.
        gap: the role that is asked for.
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
        group = 3 if phrase.plural else {"man": 0, "woman": 1}.get(noun.kind, 2)
        return [("he", "she", "it", "they")[group] if subject else ("him", "her", "it", "them")[group]]
    words = [*phrase.adjectives, noun.plural if phrase.plural else noun.word]
    article = phrase.article
    if article == "a":
        article = "" if phrase.plural else "an" if words[0][0] in "aeiou" else "a"
    elif article == "this" and phrase.plural:
        article = "these"
    return [article, *words] if article else words


def _english_clause(clause: Clause) -> list[str]:
    """Subject, verb, objects, place, time; a question turns the first two round."""
    roles = {"subject": clause.subject, "object": clause.object, "recipient": clause.recipient}
    topic = roles.pop(clause.topic)
    assert topic is not None, clause
    asked = clause.question and clause.gap != clause.topic
    verbs = lexicon.english_verb(VERBS[clause.verb], clause.tense, topic.plural, clause.passive, clause.negated, asked)
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
        return [lexicon.german_pronoun("plural" if phrase.plural else group, case)]
    words = [lexicon.german_determiner(phrase.article, group, case)]
    words += [lexicon.german_adjective(word, phrase.article, group, case) for word in phrase.adjectives]
    words.append(lexicon.german_noun(noun, phrase.plural, case))
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


def _by(words: list[str]) -> list[str]:
    return ["vom", *words[1:]] if words[0] == "dem" else ["von", *words]


def _german_clause(clause: Clause, last: bool = False) -> list[str]:
    """Verb second, or last in a clause that hangs on another; in between time, objects, `nicht`, place."""
    verb = VERBS[clause.verb]
    topic = clause.object if clause.passive else clause.subject
    assert topic is not None, clause
    finite, tail = _german_verbs(clause, topic.plural)
    thing, refused = None if clause.passive else clause.object, clause.negated
    plain = thing and not thing.pronoun and thing.noun not in NAMES
    if refused and thing and plain and thing.article in ("a", ""):
        thing, refused = replace(thing, article="no"), False  # "not a" is "kein"
    said: dict[str, list[str]] = {clause.topic: german_phrase(topic, "nominative")}
    if thing:
        said["object"] = german_phrase(thing, verb.case)
    if clause.recipient:
        said["recipient"] = german_phrase(clause.recipient, "dative")
    if clause.passive:
        said["subject"] = _by(german_phrase(clause.subject, "dative"))
    said |= {"time": [TIMES.get(clause.time, "")], "place": [PLACES.get(clause.place, "")]}
    about = []
    if clause.clause:
        link = ("als" if clause.clause.tense == "past" else "wenn") if clause.link == "when" else _LINKS[clause.link]
        about = [",", link, *_german_clause(clause.clause, last=True), ","]
    front = clause.first or clause.topic
    before = [] if last else about if front == "clause" else said.pop(front)
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
