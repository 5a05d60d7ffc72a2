"""English words with their German counterparts, the forms that both take, and the dice that choose among them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import TypeVar

from posenc.common.seeds import derive

T = TypeVar("T")

# English [plural] / kind / gender / German nominative / German plural; * marks a weak noun, - one without a plural.
_NOUNS = """
man/men man m Mann Männer; boy man m Junge* Jungen; teacher man m Lehrer Lehrer; doctor man m Arzt Ärzte
farmer man m Bauer* Bauern; neighbour man m Nachbar* Nachbarn; student man m Student* Studenten
king man m König Könige; baker man m Bäcker Bäcker; cook man m Koch Köche; painter man m Maler Maler
brother man m Bruder Brüder; father man m Vater Väter; uncle man m Onkel Onkel; son man m Sohn Söhne
gardener man m Gärtner Gärtner; soldier man m Soldat* Soldaten; guest man m Gast Gäste; judge man m Richter Richter
thief/thieves man m Dieb Diebe; driver man m Fahrer Fahrer; friend man m Freund Freunde
woman/women woman f Frau Frauen; mother woman f Mutter Mütter; sister woman f Schwester Schwestern
aunt woman f Tante Tanten; daughter woman f Tochter Töchter; queen woman f Königin Königinnen
singer woman f Sängerin Sängerinnen; grandmother woman f Großmutter Großmütter
nurse woman f Krankenschwester Krankenschwestern; girl woman n Mädchen Mädchen; child/children child n Kind Kinder
dog animal m Hund Hunde; cat animal f Katze Katzen; horse animal n Pferd Pferde; cow animal f Kuh Kühe
bird animal m Vogel Vögel; mouse/mice animal f Maus Mäuse; bear animal m Bär* Bären; lion animal m Löwe* Löwen
fox animal m Fuchs Füchse; wolf/wolves animal m Wolf Wölfe; sheep/sheep animal n Schaf Schafe
goat animal f Ziege Ziegen; duck animal f Ente Enten; pig animal n Schwein Schweine; donkey animal m Esel Esel
rabbit animal n Kaninchen Kaninchen; monkey animal m Affe* Affen; elephant animal m Elefant* Elefanten
goose/geese animal f Gans Gänse; frog animal m Frosch Frösche; tiger animal m Tiger Tiger
snake animal f Schlange Schlangen; book text n Buch Bücher; letter text m Brief Briefe
newspaper text f Zeitung Zeitungen; story/stories text f Geschichte Geschichten; poem text n Gedicht Gedichte
door opening f Tür Türen; window opening n Fenster Fenster; box opening f Kiste Kisten
cupboard opening m Schrank Schränke; suitcase opening m Koffer Koffer; coat clothing m Mantel Mäntel
hat clothing m Hut Hüte; shirt clothing n Hemd Hemden; dress clothing n Kleid Kleider; jacket clothing f Jacke Jacken
bicycle vehicle n Fahrrad Fahrräder; car vehicle n Auto Autos; ship vehicle n Schiff Schiffe; boat vehicle n Boot Boote
picture thing n Bild Bilder; ball thing m Ball Bälle; key thing m Schlüssel Schlüssel; bag thing f Tasche Taschen
cup thing f Tasse Tassen; chair thing m Stuhl Stühle; table thing m Tisch Tische; lamp thing f Lampe Lampen
clock thing f Uhr Uhren; ring thing m Ring Ringe; knife/knives thing n Messer Messer
umbrella thing m Regenschirm Regenschirme; map thing f Landkarte Landkarten; flower thing f Blume Blumen
stone thing m Stein Steine; gift thing n Geschenk Geschenke; apple food m Apfel Äpfel; cake food m Kuchen Kuchen
egg food n Ei Eier; soup food f Suppe Suppen; pear food f Birne Birnen; potato/potatoes food f Kartoffel Kartoffeln
fish/fish food m Fisch Fische; cheese food m Käse -; bread food n Brot -; milk drink f Milch -; tea drink m Tee -
coffee drink m Kaffee -; water drink n Wasser -; juice drink m Saft -; Anna woman f Anna -; Maria woman f Maria -
Clara woman f Clara -; Julia woman f Julia -; Paul man m Paul -; Peter man m Peter -; Thomas man m Thomas -
David man m David -
"""
NAMES = ("Anna", "Maria", "Clara", "Julia", "Paul", "Peter", "Thomas", "David")

# Subject > object > recipient | English [past participle] / German infinitive [third person, past, participle].
# + sets off a particle or a separable prefix; * marks a perfect with "sein"; ~ an object in the dative.
_VERBS = """
being > being | chase / jagen; see saw seen / sehen sieht sah gesehen; hear heard heard / hören; watch / beobachten
being > being | find found found / finden findet fand gefunden; catch caught caught / fangen fängt fing gefangen
being > being | push / stoßen stößt stieß gestoßen; pull / ziehen zieht zog gezogen; fear / fürchten; love / lieben
being > being | miss / vermissen; frighten / erschrecken; scare / erschrecken; wake woke woken / auf+wecken
being > being | look+at / an+sehen sieht sah angesehen; recognise / erkennen erkennt erkannte erkannt
being > being | forget forgot forgotten / vergessen vergisst vergaß vergessen
being ~ being | follow / folgen*; help / helfen hilft half geholfen; assist / helfen hilft half geholfen
animal > being | bite bit bitten / beißen beißt biss gebissen
person > being | carry / tragen trägt trug getragen; feed fed fed / füttern; wash / waschen wäscht wusch gewaschen
person > being | paint / malen; draw drew drawn / zeichnen
person > person | visit / besuchen; greet / begrüßen; invite / ein+laden lädt lud eingeladen
person > person | call / an+rufen ruft rief angerufen; phone / an+rufen ruft rief angerufen; pick+up / ab+holen
person > person | comfort / trösten; warn / warnen; meet met met / treffen trifft traf getroffen; admire / bewundern
person > person | praise / loben; understand understood understood / verstehen versteht verstand verstanden
person ~ person | thank / danken; answer / antworten; congratulate / gratulieren
person > text | read read read / lesen liest las gelesen; write wrote written / schreiben schreibt schrieb geschrieben
person > opening | open / auf+machen; close / zu+machen
person > clothing | put+on put put / an+ziehen zieht zog angezogen
person > clothing | take+off took taken / aus+ziehen zieht zog ausgezogen
person > vehicle | repair / reparieren
person > food | eat ate eaten / essen isst aß gegessen; cook / kochen
person > drink | drink drank drunk / trinken trinkt trank getrunken
person > goods | buy bought bought / kaufen; sell sold sold / verkaufen
person > goods | bring brought brought / mit+bringen bringt brachte mitgebracht
person > goods | take+along took taken / mit+nehmen nimmt nahm mitgenommen
person > goods | lose lost lost / verlieren verliert verlor verloren; hide hid hidden / verstecken
person > goods | steal stole stolen / stehlen stiehlt stahl gestohlen
person > goods | throw+away threw thrown / weg+werfen wirft warf weggeworfen; need / brauchen
person > goods > person | give gave given / geben gibt gab gegeben; show showed shown / zeigen
person > goods > person | send sent sent / schicken; lend lent lent / leihen leiht lieh geliehen
person > goods > person | offer / an+bieten bietet bot angeboten
being | sleep slept slept / schlafen schläft schlief geschlafen; run ran run / laufen läuft lief gelaufen*
being | wait / warten; sit sat sat / sitzen sitzt saß gesessen; stay / bleiben bleibt blieb geblieben*
being | swim swam swum / schwimmen schwimmt schwamm geschwommen*; jump / springen springt sprang gesprungen*
being | play / spielen; get+up got got / auf+stehen steht stand aufgestanden*
being | fall+asleep fell fallen / ein+schlafen schläft schlief eingeschlafen*
being | come+back came come / zurück+kommen kommt kam zurückgekommen*; be was been / sein ist war gewesen*
person | arrive / an+kommen kommt kam angekommen*; laugh / lachen; cry / weinen; smile / lächeln; work / arbeiten
person | dance / tanzen; sing sang sung / singen singt sang gesungen; travel travelled travelled / reisen*
person : that | say said said / sagen; think thought thought / denken denkt dachte gedacht
person : that | know knew known / wissen weiß wusste gewusst; believe / glauben; hope / hoffen; claim / behaupten
person : that | notice / bemerken
"""

# English / German stem [predicative form] / what it is said of.
_ADJECTIVES = """
old alt any; young jung being; big groß any; large groß any; small klein any; little klein any; fat dick being
strong stark being; weak schwach being; tired müd|müde being; hungry hungrig being; happy glücklich being
sad traurig being; clever klug being; smart klug being; brave mutig being; lazy faul being; friendly freundlich being
angry wütend being; quiet ruhig being; sick krank being; ill krank being; healthy gesund being; thin dünn being
rich reich person; poor arm person; polite höflich person; famous berühmt person; beautiful schön any
ugly hässlich any; wet nass any; dirty schmutzig any; new neu wares; red rot wares; green grün wares
blue blau wares; white weiß wares; heavy schwer wares; cheap billig wares; expensive teur|teuer wares
clean sauber wares; empty leer vehicle; dark dunkl|dunkel wares; fresh frisch food; cold kalt meal; hot heiß meal
long lang text; short kurz text; interesting interessant text; boring langweilig text
"""

# English / German / the tenses it goes with: a present, b past, c perfect, d future and modal verbs.
_TIMES = """
today/heute/abcd; now/jetzt/a; every day/jeden Tag/ab; every morning/jeden Morgen/ab; in the morning/am Morgen/abd
in the evening/am Abend/abd; at noon/am Mittag/abd; at night/in der Nacht/abd; on Monday/am Montag/bd
on Friday/am Freitag/bd; on Sunday/am Sonntag/bd; yesterday/gestern/b; last week/letzte Woche/b
last year/letztes Jahr/b; this week/diese Woche/acd; tomorrow/morgen/d; next week/nächste Woche/d
in summer/im Sommer/abd; in winter/im Winter/abd; after lunch/nach dem Mittagessen/abd
"""
_PLACES = """
in the garden/im Garten; in the kitchen/in der Küche; in the house/im Haus; in the park/im Park
in the forest/im Wald; in the street/auf der Straße; at the station/am Bahnhof; in the school/in der Schule
in the town/in der Stadt; in the village/im Dorf; by the river/am Fluss; by the lake/am See
in the market/auf dem Markt; on the bridge/auf der Brücke; in front of the house/vor dem Haus
behind the church/hinter der Kirche; under the tree/unter dem Baum; in the yard/im Hof
in the field/auf dem Feld; on the mountain/auf dem Berg; on the beach/am Strand; on the island/auf der Insel
in the hotel/im Hotel; in the theatre/im Theater
"""

# What the pairs are about: few enough words for a small model to learn each of them well.
BEINGS = ("dog", "cat", "horse", "fox", "bear", "wolf", "lion", "mouse", "duck", "goat", "man", "woman", "boy", "girl",
          "doctor", "farmer", "teacher", "king", "queen", "nurse")  # fmt: skip
DEEDS = ("chase", "see", "hear", "watch", "find", "catch", "push", "pull", "love", "miss", "wake", "recognise", "help",
         "frighten", "follow", "fear")  # fmt: skip
ACTS = ("sleep", "run", "wait", "swim", "jump", "play", "laugh", "work", "dance", "sing")
TRAITS = ("old", "young", "big", "small", "clever", "sick", "hungry", "sad", "brave", "lazy", "strong", "quiet")
WHEN = ("yesterday", "in the morning", "in the evening", "at noon", "on Monday", "on Sunday", "last week")
WHERE = ("in the garden", "in the kitchen", "in the park", "in the forest", "by the river", "on the bridge",
         "at the station", "in the school")  # fmt: skip
SHOWN = ("film", "play", "book", "concert", "song", "story", "meal", "hotel", "party", "journey", "lesson", "game",
          "show", "speech", "museum", "dance")  # fmt: skip
GOOD = ("good", "great", "funny", "beautiful", "clever", "exciting", "lovely", "pleasant", "charming", "brilliant",
         "wonderful", "touching", "fresh", "interesting", "perfect", "moving")  # fmt: skip
BAD = ("bad", "dull", "boring", "ugly", "stupid", "tiresome", "awful", "unpleasant", "clumsy", "poor", "terrible",
        "empty", "stale", "tedious", "weak", "dreadful")  # fmt: skip

OPPOSITES = (
    ("older", "younger"), ("bigger", "smaller"), ("stronger", "weaker"), ("richer", "poorer"), ("faster", "slower"),
    ("happier", "sadder"), ("louder", "quieter"), ("taller", "shorter"),
)  # fmt: skip
_THINGS = ("text", "opening", "clothing", "vehicle", "thing", "food")
KINDS = {
    "person": ("man", "woman", "child"),
    "being": ("man", "woman", "child", "animal"),
    "goods": _THINGS,
    "wares": ("opening", "clothing", "vehicle", "thing"),
    "meal": ("food", "drink"),
    "any": ("man", "woman", "child", "animal", "opening", "clothing", "vehicle", "thing"),
}
MODALS = {"can": "können", "should": "sollen", "may": "dürfen", "have to": "müssen", "want to": "wollen"}


class Dice:
    """Draws that are the same in every version of Python: `random.choice` and `shuffle` promise less."""

    def __init__(self, seed: int, *purpose: object) -> None:
        self._random = Random(derive(seed, *purpose))

    def below(self, n: int) -> int:
        """A whole number from 0 to n - 1."""
        return int(self._random.random() * n)

    def one(self, items: Sequence[T]) -> T:
        """One of the items."""
        return items[self.below(len(items))]

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self._random.random() < probability

    def some(self, items: Sequence[T], count: int) -> list[T]:
        """So many different items, in random order."""
        left, draw = list(items), self._random.random
        return [left.pop(int(draw() * size)) for size in range(len(left), len(left) - count, -1)]


@dataclass(frozen=True)
class Noun:
    """A noun of both languages; `kind` says what may be said of it, `gender` is the German one."""

    word: str
    plural: str
    kind: str
    gender: str
    german: str
    german_plural: str
    weak: bool


@dataclass(frozen=True)
class Verb:
    """A verb of both languages: the English forms, then the German ones, without `prefix` unless one word with it."""

    base: str
    past: str
    participle: str
    infinitive: str
    present: str
    preterite: str
    german_participle: str
    prefix: str
    auxiliary: str  # of the German perfect: haben, sein
    subject: str
    object: str
    recipient: str
    case: str  # of the German object

    @property
    def third(self) -> str:
        """The third person singular of the English present."""
        word, *particle = self.base.split()
        if word.endswith(("s", "x", "ch", "sh", "o")):
            word += "es"
        elif word.endswith("y") and word[-2] not in "aeou":
            word = word[:-1] + "ies"
        else:
            word += "s"
        return " ".join([word, *particle])


@dataclass(frozen=True)
class Adjective:
    """An adjective: the German stem takes endings, `alone` stands after a verb."""

    word: str
    stem: str
    alone: str
    kind: str


@cache
def fits(kind: str, wanted: str) -> bool:
    """Whether a noun of a kind may stand where another, or a wider one, is wanted."""
    return kind == wanted or kind in KINDS.get(wanted, ())


def _entries(table: str) -> list[str]:
    return [entry.strip() for entry in table.replace("\n", ";").split(";") if entry.strip()]


def _nouns() -> dict[str, Noun]:
    found = {}
    words = _NOUNS.replace(";", " ").split()
    for start in range(0, len(words), 5):
        english, kind, gender, german, plural = words[start : start + 5]
        word, _, many = english.partition("/")
        many = many or word + ("es" if word.endswith(("s", "x", "ch", "sh")) else "s")
        weak = german.endswith("*")
        found[word] = Noun(word, many, kind, gender, german.rstrip("*"), "" if plural == "-" else plural, weak)
    return found


def _regular_past(word: str) -> str:
    if word.endswith("e"):
        return word + "d"
    if word.endswith("y") and word[-2] not in "aeou":
        return word[:-1] + "ied"
    return word + "ed"


def _regular(infinitive: str) -> list[str]:
    """The third person, the past and the participle of a regular German verb."""
    stem = infinitive[:-1] if infinitive.endswith(("ern", "eln")) else infinitive[:-2]
    soft = "e" if stem.endswith(("d", "t", "chn")) else ""
    ge = "" if stem.startswith(("be", "er", "ver")) or infinitive.endswith("ieren") else "ge"
    return [f"{stem}{soft}t", f"{stem}{soft}te", f"{ge}{stem}{soft}t"]


def _verb(frame: str, entry: str) -> Verb:
    english, german = (part.split() for part in entry.split(" / "))
    base, _, particle = english[0].partition("+")
    past, participle = english[1:] or [_regular_past(base)] * 2
    prefix, _, infinitive = german[0].rstrip("*").rpartition("+")
    third, preterite, done = german[1:] or _regular(infinitive)
    done = done.rstrip("*") if german[1:] else prefix + done
    base, past, participle = (f"{form} {particle}".strip() for form in (base, past, participle))
    auxiliary = "sein" if entry.endswith("*") else "haben"
    subject, thing, recipient = (re.split(r" [>~:] ", frame) + ["", ""])[:3]
    case = "dative" if "~" in frame else "accusative"
    return Verb(
        base, past, participle, infinitive, third, preterite, done, prefix, auxiliary, subject, thing, recipient, case
    )


def _verbs() -> list[Verb]:
    lines = [line.split(" | ") for line in _VERBS.strip().splitlines()]
    return [_verb(frame, entry) for frame, entries in lines for entry in _entries(entries)]


def _adjective(entry: str) -> Adjective:
    word, german, kind = entry.split()
    stem, _, alone = german.partition("|")
    return Adjective(word, stem, alone or stem, kind)


NOUNS = _nouns()
VERBS = {verb.base: verb for verb in _verbs()}
ADJECTIVES = {adjective.word: adjective for adjective in map(_adjective, _entries(_ADJECTIVES))}
_TIME_ROWS = [entry.split("/") for entry in _entries(_TIMES)]
TIMES = {english: german for english, german, _ in _TIME_ROWS}
TIMES_OF = {tense: tuple(row[0] for row in _TIME_ROWS if tense in row[2]) for tense in "abcd"}
PLACES = {english: german for english, _, german in (entry.partition("/") for entry in _entries(_PLACES))}

_ORDER = ("nominative", "accusative", "dative")
_STRONG = {"m": ("er", "en", "em"), "f": ("e", "e", "er"), "n": ("es", "es", "em"), "plural": ("e", "e", "en")}
_MIXED = {"m": ("er", "en", "en"), "f": ("e", "e", "en"), "n": ("es", "es", "en"), "plural": ("en", "en", "en")}
_WEAK = {"m": ("e", "en", "en"), "f": ("e", "e", "en"), "n": ("e", "e", "en"), "plural": ("en", "en", "en")}
_EIN = {"m": ("", "en", "em"), "f": ("e", "e", "er"), "n": ("", "", "em"), "plural": ("e", "e", "en")}
_THE = {
    "m": ("der", "den", "dem"),
    "f": ("die", "die", "der"),
    "n": ("das", "das", "dem"),
    "plural": ("die", "die", "den"),
}
_HE = {
    "m": ("er", "ihn", "ihm"),
    "f": ("sie", "sie", "ihr"),
    "n": ("es", "es", "ihm"),
    "plural": ("sie", "sie", "ihnen"),
}
# The German stem of a determiner, the endings it takes, and those of an adjective after it.
_DETERMINERS = {
    "a": ("ein", _EIN, _MIXED), "no": ("kein", _EIN, _MIXED), "my": ("mein", _EIN, _MIXED),
    "this": ("dies", _STRONG, _WEAK), "every": ("jed", _STRONG, _WEAK), "many": ("viel", _STRONG, _STRONG),
}  # fmt: skip


def german_determiner(article: str, group: str, case: str) -> str:
    """The German determiner for an English one; `group` is a gender, or `plural`."""
    if article == "the":
        return _THE[group][_ORDER.index(case)]
    if article in ("", "two") or (article == "a" and group == "plural"):
        return "zwei" if article == "two" else ""
    stem, endings, _ = _DETERMINERS[article]
    return stem + endings[group][_ORDER.index(case)]


def german_adjective(word: str, article: str, group: str, case: str) -> str:
    """A German adjective before its noun, with the ending that the determiner calls for."""
    if article == "the":
        endings = _WEAK
    elif article in ("", "two") or (article == "a" and group == "plural"):
        endings = _STRONG
    else:
        endings = _DETERMINERS[article][2]
    return ADJECTIVES[word].stem + endings[group][_ORDER.index(case)]


def german_noun(noun: Noun, plural: bool, case: str) -> str:
    """A German noun in its number and case."""
    if plural:
        short = case == "dative" and not noun.german_plural.endswith(("n", "s"))
        return noun.german_plural + ("n" if short else "")
    return noun.german_plural if noun.weak and case != "nominative" else noun.german


def german_pronoun(group: str, case: str) -> str:
    """er, sie, es."""
    return _HE[group][_ORDER.index(case)]


def german_preterite(verb: Verb, plural: bool) -> str:
    """The past of a German verb, third person."""
    return verb.preterite + (("n" if verb.preterite.endswith("e") else "en") if plural else "")


def english_verb(verb: Verb, tense: str, plural: bool, passive: bool, negated: bool, asked: bool) -> list[str]:
    """The words of an English verb; the first is finite, and stands before the subject where something is asked."""
    base, done = (["be", verb.participle], ["been", verb.participle]) if passive else ([verb.base], [verb.participle])
    supported = asked or negated
    if tense in ("perfect", "pluperfect"):
        words = ["had" if tense == "pluperfect" else "have" if plural else "has", *done]
    elif tense in ("have to", "want to"):
        word = tense.split()[0]
        finite = word if plural else {"have": "has", "want": "wants"}[word]
        words = [*(["do" if plural else "does", word] if supported else [finite]), "to", *base]
    elif tense in MODALS or tense == "will":
        words = [tense, *base]
    elif passive or verb.base == "be":
        finite = ("are" if plural else "is") if tense == "present" else ("were" if plural else "was")
        words = [finite, *(done[1:] if passive else [])]
    elif supported:
        words = ["did" if tense == "past" else "do" if plural else "does", verb.base]
    else:
        words = [verb.past if tense == "past" else verb.base if plural else verb.third]
    if negated and words[0] == "can" and not asked:
        return ["cannot", *words[1:]]
    return [words[0], "not", *words[1:]] if negated else words
