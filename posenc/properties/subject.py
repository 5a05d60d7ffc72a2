"""What is measured: one encoding, its stacks, small models of them in float64; and how findings are told."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from posenc.api import registry
from posenc.api.blame import HookError, blamed, ready, said
from posenc.api.encoding import Encoding
from posenc.api.stack import Stack
from posenc.backbone.config import BackboneConfig
from posenc.backbone.transformer import Transformer
from posenc.common.errors import ConfigError, FaultyPluginError, NotPossibleError, PosencError
from posenc.common.seeds import derive

VOCABULARY, FEATURES = 32, 32
SAME = 1e-10
"""Float64 outputs, of a size near 1, that differ by no more than this are the same but for rounding."""
LENGTH = 24
"""Tokens of a short row, of which each can be tried."""
MULTIPLES = (1, 1.5, 2, 4, 8, 12.5, 16)
"""Of the trained length, at which suites score."""
DISTANT = (601, 1031)
"""Tokens: lengths of no round number, since where a plug-in's own code branches cannot be known."""
AFFORDABLE = 4096
"""Tokens: a pass over twice as many takes four times as long, and a table of pairs fills four times the memory."""

Outcome = tuple[str, str, str]
"""What is declared, what was measured, what is wrong. Nothing measured: it does not apply, and the last says why."""

Served = tuple[str, Transformer, Encoding]


@dataclass(frozen=True)
class Finding:
    """One property. `passed` is None where it does not apply; `why` says why not, or what is wrong."""

    name: str
    what: str
    declared: str
    measured: str
    passed: bool | None
    why: str = ""


def default_lengths(length: int = LENGTH) -> list[int]:
    """Where leaks are looked for beside a short row: multiples of what is trained on (twice as long), and beyond."""
    return sorted({*(math.ceil(2 * length * by) for by in MULTIPLES), *DISTANT})


class Subject:
    """One encoding, and the stacks that it can serve: name to (causal, kind of attention).

    Attributes:
        length: tokens of a row, half of what models are trained on, so that padding finds room.
        trained: the length that the stacks say they are trained on.
        others: the other lengths at which leaks are looked for, in rising order.
        axes: how many coordinates of a position its stacks have: as many as it reads, 1 for text. With more than one,
            every pass is given the coordinates of a grid.
    """

    def __init__(self, encoding: str, seed: int, length: int, others: Sequence[int] | None = None) -> None:
        self.encoding, self.seed, self.length, self.trained = encoding, seed, length, 2 * length
        self.others = sorted(set(default_lengths(length) if others is None else others))
        if self.others and not (self.others[0] >= 2 and self.others[-1] <= AFFORDABLE):
            wrong = next(each for each in self.others if not 2 <= each <= AFFORDABLE)
            raise ConfigError(f"{wrong} tokens cannot be checked: from 2 to {AFFORDABLE:,} can")
        self.axes, self.limit = axes_of(encoding, self.trained), self.trained
        self.served: dict[str, tuple[bool, str]] = {}
        self.refused: dict[str, str] = {}
        self.broken: dict[str, str] = {}
        for causal, kind in product((True, False), ("softmax", "performer")):
            name = f"{'causal' if causal else 'bidirectional'} {kind}"
            try:
                made = registry.create(encoding, self.stack(causal, kind))
                if (reason := made.why_not(kind)) is not None:
                    self.refused[name] = reason
                    continue
                self.served[name] = (causal, kind)
                if made.max_length is not None:  # padding must find room too
                    self.length = min(self.length, made.max_length // 2)
                    self.limit = min(self.limit, made.max_length)
            except NotPossibleError as error:
                self.refused[name] = str(error)
            except FaultyPluginError as error:
                self.broken[name] = str(error)
            except PosencError:  # a name or a value that the user wrote
                raise
            except Exception as error:
                self.broken[name] = blamed(error) or said(error)

    def stack(self, causal: bool, kind: str) -> Stack:
        """A stack of the backbone measured, in a direction and with a kind of attention."""
        return config(causal, kind).stack(self.trained, causal=causal, axes=self.axes)

    def models(
        self, causal: bool | None = None, kind: str = "", room: int = 0, small: bool = False, layers: int = 2
    ) -> Iterator[Served]:
        """Name, float64 model and encoding of each stack served, or of those asked for.

        Args:
            room: the model's max_length. small: one narrow head, for long rows.
        """
        for name, (direction, attention) in self.served.items():
            if causal in (None, direction) and kind in ("", attention):
                shape = config(direction, attention, layers, heads=1 if small else 4)
                model = Transformer(shape, self.encoding, room or self.trained, axes=self.axes)
                ready(model.initialise(self.seed).encodings()[0], self.seed)
                yield name, model.double().eval(), model.encodings()[0]

    def places(self, causal: bool | None = None, kind: str = "", room: int = 0) -> Iterator[Place]:
        """Where leaks are looked for: each stack at the usual length, then at the others, as far as the encoding goes.

        Args:
            room: how many tokens of padding stand beside a row at the other lengths.
        """
        for stack, model, _ in self.models(causal, kind):
            yield Place(stack, self.length, model, self.tokens())
        for stack, model, encoding in self.models(causal, kind, small=True):
            limit = encoding.max_length
            there = self.others if limit is None else [each for each in self.others if each + room <= limit]
            for length in there:
                yield Place(stack, length, model, self.tokens(length)[:1])

    def tokens(self, length: int = 0) -> Tensor:
        """Random tokens (2,L)."""
        generator = torch.Generator().manual_seed(derive(self.seed, "tokens"))
        return torch.randint(VOCABULARY, (2, length or self.length), generator=generator)

    def places_of(self, count: int, longest: int = 0) -> Tensor:
        """Where tokens stand: positions (L,) counted from 0, or of several axes the coordinates (L,A) of a grid.

        Args:
            longest: the grid holds so many tokens, of which it is as wide and as high (and as long) as need be; more
                tokens make its first axis longer. 0 for the trained length, or the encoding's if that is less.
        """
        return grid(count, self.axes, side_of(longest or self.limit, self.axes))

    def given(self, model: Transformer, count: int) -> dict[str, Any]:
        """What a pass over so many tokens is given beside them: coordinates, where there are several axes."""
        if self.axes == 1:
            return {}
        encoding = model.encodings()[0]
        return {"coordinates": self.places_of(count, encoding.max_length or encoding.stack.max_length)[None]}

    def logits(self, model: Transformer, tokens: Tensor) -> Tensor:
        """What a model answers, with gradients."""
        return model.logits(model.hidden(tokens, **self.given(model, tokens.shape[1])))

    @torch.no_grad()
    def run(self, model: Transformer, tokens: Tensor, mask: Tensor | None = None, **more: Any) -> Tensor:
        """Hidden states (B,L,D), 0 at padding; random features and generators stand as at step 0."""
        keys = tokens.shape[1] + (more["cache"].length if "cache" in more else 0)
        out = model.begin_step(self.seed, 0).hidden(tokens, mask=mask, **(self.given(model, keys) | more))
        if mask is not None:
            out = out.masked_fill(~mask[:, -out.shape[1] :, None], 0.0)
        if not out.isfinite().all():
            raise HookError("the model's output is not finite, though what each hook gave was")
        return out

    def padded(self, model: Transformer, tokens: Tensor, left: int, right: int, places: Tensor | None = None) -> Tensor:
        """What `run` gives at the tokens (B,L), with padding to their left and right.

        Args:
            places: the coordinates (L,A) of the tokens, of several axes; None for those that `run` gives them.
        """
        row = nn.functional.pad(tokens, (left, right), value=7)
        real = nn.functional.pad(torch.ones(tokens.shape[1], dtype=torch.bool), (left, right))
        more = self.given(model, tokens.shape[1])
        if more:  # padding stands at the grid's corner, where a token stands too
            own = more["coordinates"] if places is None else places[None]
            more = {"coordinates": nn.functional.pad(own, (0, 0, left, right))}
        return self.run(model, row, real.expand(len(tokens), -1), **more)[:, real]


@dataclass(frozen=True)
class Place:
    """A stack at a length, the model that serves it, and the tokens (B,L) that it reads."""

    stack: str
    length: int
    model: Transformer
    tokens: Tensor

    @property
    def usual(self) -> bool:
        """Whether this is where everything else is measured: a short row, of which each token can be tried."""
        return len(self.tokens) > 1


class Worst:
    """The largest difference of each stack, and where it was too large."""

    def __init__(self, limit: float = SAME) -> None:
        self.limit, self.measured, self.bad = limit, dict[str, float](), dict[str, list[int]]()
        self.lengths = set[int]()

    def add(self, name: str, length: int, value: float) -> None:
        """A difference that was measured: `name` tells the stack, and what was done to it."""
        self.measured[name] = max(self.measured.get(name, 0.0), value)
        self.lengths.add(length)
        if not value <= self.limit:
            self.bad.setdefault(name, []).append(length)

    def shown(self) -> str:
        return shown(self.measured)

    def at(self) -> str:
        """The lengths at which something was measured."""
        return f"at {', '.join(f'{length:,}' for length in sorted(self.lengths)).replace(', ', ' ')} tokens"

    def complaint(self, text: str) -> str:
        """The text, with where it is so; nothing where it is nowhere."""
        where = [f"{name} at {' '.join(f'{length:,}' for length in lengths)}" for name, lengths in self.bad.items()]
        return f"{text} ({', '.join(where)} tokens)" if where else ""


def config(causal: bool, kind: str, layers: int = 2, heads: int = 4) -> BackboneConfig:
    """The backbone measured: heads of 16 channels; chunks so small that a short row has several."""
    return BackboneConfig(
        form="decoder" if causal else "encoder", vocabulary=VOCABULARY, layers=layers, width=16 * heads, heads=heads,
        feedforward=16 * heads, features=FEATURES,
        attention="softmax" if kind == "softmax" else "performer", chunk=8 if heads == 4 else 64,
    )  # fmt: skip


def axes_of(encoding: str, trained: int) -> int:
    """How many coordinates of a position an encoding reads; 1 where it reads none, any number, or cannot be made."""
    with suppress(Exception):  # why it cannot be made is told where each of its stacks is made
        return registry.create(encoding, config(False, "softmax").stack(trained, causal=False)).axes or 1
    kinds = [registry.load(spec.name) for spec in registry.parse(encoding)]
    return max((kind.axes or 1 for kind in kinds), default=1)


def side_of(longest: int, axes: int) -> int:
    """The side of the least square (or cube) that holds so many tokens."""
    side = 1
    while side**axes < longest:
        side += 1
    return side


def grid(count: int, axes: int, side: int) -> Tensor:
    """Places of tokens in reading order: counted from 0 (L,), or (row, column), (time, row, column) as (L,A).

    Every axis but the first has `side` places; the first has as many as are needed.
    """
    index = torch.arange(count)
    if axes == 1:
        return index
    at = [index // side ** (axes - 1)] + [index // side**power % side for power in range(axes - 2, -1, -1)]
    return torch.stack(at, dim=-1)


def apart(one: Tensor, other: Tensor) -> float:
    """The largest difference between two tensors; 0 where they are empty."""
    return (one - other).abs().max().item() if one.numel() else 0.0


def shown(measured: dict[str, float]) -> str:
    """Differences by name, in a line."""
    return ", ".join(f"{name} {value:.1e}" if value else f"{name} 0" for name, value in measured.items())


def over(measured: dict[str, float], complaint: str, limit: float = SAME) -> str:
    """The complaint, with the names of those over the limit; nothing where none is."""
    names = [name for name, value in measured.items() if not value <= limit]
    return f"{complaint} ({', '.join(names)})" if names else ""


def parts_of(encoding: Encoding) -> list[Encoding]:
    """The encoding, or where layers differ the one of each layer."""
    if encoding.at(0) is encoding:
        return [encoding]
    return [encoding.at(layer) for layer in range(encoding.stack.layers)]
