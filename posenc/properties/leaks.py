"""What reaches an output that should not: later tokens, padding, packed neighbours, what was cached, earlier rows.

Each is measured at a short length token by token, at every multiple of the trained length that suites score, and at
some lengths beyond.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from contextlib import suppress

import torch
from torch import Tensor

from posenc.api.encoding import Context, prepare
from posenc.attention.interface import DecodingCache
from posenc.backbone.transformer import Transformer
from posenc.common.errors import NotPossibleError
from posenc.common.seeds import derive
from posenc.properties.subject import VOCABULARY, Outcome, Place, Subject, Worst, apart

PADDING = 16
"""Tokens of padding, where there is room."""


def _changed(subject: Subject, model: Transformer, tokens: Tensor, whole: Tensor, at: Iterable[int]) -> float:
    """By how much outputs before a changed token differ from the `whole`, at the worst of the places `at`."""
    worst = 0.0
    for t in at:
        other = tokens.clone()
        other[:, t] = (other[:, t] + 1) % VOCABULARY
        worst = max(worst, apart(subject.run(model, other)[:, :t], whole[:, :t]))
    return worst


def _some(subject: Subject, place: Place) -> list[int]:
    """Tokens to change where each in turn would take too long: the second, the last, and one between."""
    between = random.Random(derive(subject.seed, "changed", place.length)).randrange(1, place.length)
    return sorted({1, between, place.length - 1})


def causality(subject: Subject) -> Outcome:
    """A changed token changes no earlier output, to the last bit; a row cut short keeps its outputs."""
    changed, cut, cached = Worst(0.0), Worst(), True
    for place in subject.places(causal=True):
        stack, length, model, tokens = place.stack, place.length, place.model, place.tokens
        at = range(1, length) if place.usual else _some(subject, place)
        cached, whole = model.encodings()[0].cached_decoding, subject.run(model, tokens)
        changed.add(stack, length, _changed(subject, model, tokens, whole, at))
        for end in {1, length // 2, length - 1} if place.usual else {length - 1}:
            cut.add(stack, length, apart(subject.run(model, tokens[:, :end]), whole[:, :end]))
    if not changed.measured:
        return "", "", "it serves no causal stack"
    wrong = changed.complaint("later tokens reach earlier outputs")
    if cached:  # one that declares no cached decoding may depend on how long the row is
        wrong = wrong or cut.complaint("how long the row is reaches earlier outputs")
    return "causal", f"token changed: {changed.shown()}; row cut: {cut.shown()}; {changed.at()}", wrong


def padding(subject: Subject) -> Outcome:
    """Padding, left or right, changes no output of a real token."""
    measured = Worst()
    for place in subject.places(room=PADDING):
        bare, pad = subject.run(place.model, place.tokens), max(1, min(place.length // 4, PADDING))
        for side, (left, right) in {"left": (pad, 0), "right": (0, pad)}.items():
            difference = apart(subject.padded(place.model, place.tokens, left, right), bare)
            measured.add(f"{place.stack} {side}", place.length, difference)
    return "no effect", f"{measured.shown()}; {measured.at()}", measured.complaint("padding changes outputs")


def packed_rows(subject: Subject) -> Outcome:
    """Examples packed in one row give what each gives alone."""
    measured = Worst()
    for place in subject.places():
        model, tokens, first = place.model, place.tokens, place.length // 3
        segments = (torch.arange(place.length) >= first).long().expand(len(tokens), -1)
        parts = [part for part in (tokens[:, :first], tokens[:, first:]) if part.shape[1]]
        alone = torch.cat([subject.run(model, part) for part in parts], dim=1)
        given = [subject.given(model, part.shape[1]) for part in parts]  # coordinates start again in each example
        more = {name: torch.cat([one[name] for one in given], dim=1) for name in given[0]}
        measured.add(place.stack, place.length, apart(subject.run(model, tokens, segments=segments, **more), alone))
    wrong = measured.complaint("packed examples are not as they are alone")
    return "the same", f"{measured.shown()}; {measured.at()}", wrong


def cached_decoding(subject: Subject) -> Outcome:
    """Decoding with cached keys, left padding too, gives what one pass over the whole gives."""
    measured = Worst()
    for place in subject.places(causal=True):
        model, tokens, length = place.model, place.tokens, place.length
        cache, layers = DecodingCache(model.config.layers), model.encodings()[0]
        if not layers.cached_decoding:
            with suppress(NotPossibleError):
                subject.run(model, tokens, cache=cache)
                return "no", "not refused", "it takes a cache that it declares it cannot use"
            return "no", "refused", ""
        first = max(1, length // 4)
        mask = torch.ones(len(tokens), length, dtype=torch.bool)
        mask[-1, : first // 2] = False
        between = range(first + 1, length, 2) if place.usual else (length // 2, length - 2, length - 1)
        ends = sorted({first, *between, length} - {0})
        steps = [subject.run(model, tokens[:, cache.length : end], mask[:, :end], cache=cache) for end in ends]
        measured.add(place.stack, length, apart(torch.cat(steps, dim=1), subject.run(model, tokens, mask)))
    if not measured.measured:
        return "", "", "it serves no causal attention"
    return "yes", f"{measured.shown()}; {measured.at()}", measured.complaint("cached decoding differs")


def lengths(subject: Subject) -> Outcome:
    """It works at every length or to its largest, refuses what is longer, and keeps nothing between lengths."""
    wrong, longest, limit = [], 0, None
    for stack, model, encoding in subject.models(small=True):
        short, limit = subject.run(model, subject.tokens()), encoding.max_length
        works = [each for each in (4 * subject.length, *subject.others) if limit is None or each <= limit]
        if limit is not None:
            works.append(limit)
            with suppress(NotPossibleError):
                beyond = Context(stack=encoding.stack, queries=1, keys=limit + 1, device=short.device)
                beyond.coordinates = subject.given(model, limit + 1).get("coordinates")
                prepare(encoding, beyond)
                wrong.append(f"{stack}: {limit + 1} tokens are not refused")
        for length in sorted(works):
            subject.run(model, subject.tokens(length)[:1])
        longest = max(works)
        if apart(subject.run(model, subject.tokens()), short):
            wrong.append(f"{stack}: the same row gives something else after a longer one")
    refused = f", {limit + 1} is refused" if limit is not None and not wrong else ""
    return f"largest length: {limit or 'none'}", f"{longest} works{refused}", "; ".join(wrong)
