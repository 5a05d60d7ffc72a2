"""A trained model for its owner: `posenc.load` gives what `posenc run --keep` kept, ready to use on the CPU.

model = posenc.load("results/quick", "enwik8/softmax/rope/L64/s0")
model.score("What is scored depends on the objective.")
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from posenc.attention.softmax.reference import watched
from posenc.backbone.decode import translate
from posenc.backbone.transformer import Transformer
from posenc.common.errors import ConfigError, NotPossibleError, StoreError
from posenc.config.settings import Settings
from posenc.objectives import factory
from posenc.objectives.packing import hidden
from posenc.plan.cell import Cell
from posenc.plan.selection import data_folder
from posenc.records.record import Record
from posenc.training import card, evaluation
from posenc.training.runtime import precision

Text = str | bytes | Sequence[int]
"""A text, or the tokens that `tokenise` made of one."""
ON_A_CPU = ("auto", "reference", "sdpa", "blocks")
TEXTS = {
    "causal_lm": ("text",),
    "masked_lm": ("text",),
    "classification": ("first", "second"),
    "matching": ("first", "second"),
    "translation": ("source", "target"),
}
"""What each objective's model reads."""
PARTS = {"decoder": ("decoder",), "encoder": ("encoder",), "encoder-decoder": ("encoder", "decoder", "cross")}
"""Whose attention there is, by the form of the backbone."""


class Trained:
    """A trained model with its tokeniser, on the CPU.

    Attributes:
        cell: id, name and configuration. record: all that its run wrote down.
        model: the Transformer, in evaluation mode. tokeniser: None where tokens are bytes.
        described: what was kept beside the weights. weights: by name, as they were tested.
        backend: of softmax attention; the cell's own where it runs on a CPU, else "auto".
    """

    def __init__(self, described: dict[str, Any], record: Record, weights: dict[str, Tensor], tokeniser: Any) -> None:
        self.described, self.cell = described, Cell.of(described["config"], described["name"])
        self.record, self.tokeniser = record, tokeniser
        settings = self.cell.settings
        asked = settings.runtime.backend
        self.backend = asked if asked in ON_A_CPU else "auto"
        runtime = replace(settings.runtime, device="cpu", processes=1, compile="none", backend=self.backend)
        self.settings: Settings = replace(settings, runtime=runtime)
        self.weights, self._step = weights, described["step"]
        self.model = self._made(self.backend)

    def _made(self, backend: str) -> Transformer:
        settings = self.settings
        model = Transformer(settings.backbone, settings.encoding_name, settings.max_length, backend)
        try:
            model.load_state_dict(self.weights)
        except RuntimeError as error:  # another version of posenc, whose model has other parts
            raise StoreError(
                f"the weights of {self.cell.name} do not fit the model that this version of posenc makes"
                f" ({str(error).splitlines()[0]})"
            ) from None
        return model.eval().begin_step(settings.seed, self._step)  # its random features, where it has some

    @property
    def card(self) -> str:
        """What it is, in Markdown: encoding with options, data, scores, versions."""
        return card.written(self.described, self.record)

    def __repr__(self) -> str:
        return f"<posenc model {self.cell.name} ({self.settings.objective})>"

    def tokenise(self, *texts: str | bytes) -> list[int]:
        """The tokens of a text as the model reads them.

        Causal language modelling: its bytes (or tokens). Masked: its tokens and [SEP]. Classification: [CLS] first
        [SEP], or [CLS] first [SEP] second [SEP]; matching: the latter. Translation: the tokens of a side and [SEP].
        """
        objective = self._readable()
        most = 1 if objective == "translation" else len(TEXTS[objective])
        least = 2 if objective == "matching" else 1
        if not least <= len(texts) <= most:
            raise ConfigError(f"tokenise: {self._takes(least, most)}, and {len(texts)} were given")
        if self.tokeniser is None:
            return list(texts[0].encode() if isinstance(texts[0], str) else texts[0])
        rows = self.tokeniser.encode([text if isinstance(text, str) else text.decode() for text in texts])
        if objective == "causal_lm":
            return list(rows[0])
        ids = [token for row in rows for token in (*row, self.tokeniser.sep)]
        return [self.tokeniser.cls, *ids] if objective in ("classification", "matching") else ids

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens, special ones left out."""
        self._readable()
        if self.tokeniser is None:
            return bytes(tokens).decode(errors="replace")
        return str(self.tokeniser.decode(tokens))

    @torch.no_grad()
    def logits(self, *texts: Text) -> Tensor:
        """What the model says before any softmax, of one text or its tokens.

        Causal: (L,vocabulary), row i for the token after i. Masked: (L,vocabulary), row i for the token at i.
        Classification, of one text or two: (classes,), or (1,) where the labels are scores. Matching, of two: (1,).
        Translation, of source and target: (L,vocabulary), row i for the target's token i, [SEP] the last.
        """
        objective = self._readable()
        with self.computing():
            if objective == "translation":
                source, target = self._tensors(texts, 2)
                return self._translated(self.model, source, target)
            tokens = self._one(texts)
            if objective in ("causal_lm", "masked_lm"):
                return self.model(tokens)[0].float()
            mask = torch.ones_like(tokens, dtype=torch.bool)
            return self.model.summarise(hidden(self.model, tokens, mask, ()), mask)[0].float()

    def _translated(self, model: Transformer, source: Tensor, target: Tensor) -> Tensor:
        read = torch.cat((torch.full((1, 1), self.tokeniser.cls), target[:, :-1]), dim=1)
        memory = model.hidden(source, mask=torch.ones_like(source, dtype=torch.bool))
        real = torch.ones_like(read, dtype=torch.bool)
        out = model.decode(read, memory, mask=real, memory_mask=torch.ones_like(source, dtype=torch.bool))
        return model.logits(out)[0].float()

    @torch.no_grad()
    def score(self, *texts: Text, length: int | None = None) -> dict[str, float]:
        """What the objective scores, of one text.

        Causal: `bits_per_character` (`bits_per_token` where tokens are no bytes) of all tokens but the first, in
        windows side by side as the test has them: of `length` tokens, by default the trained length. Masked:
        `masked_loss` (nats) and `masked_accuracy`, each token hidden in turn (a pseudo-likelihood: Salazar et al.
        2020), where training hides 15 % at once. Classification: the probability of each class, or `score`.
        Matching: `nearness` of two texts, a logit; of three (a, b, c) the `B` and `C` of b and c, of which the larger
        is the nearer. Translation: `target_loss`, nats a token of the target given the source.
        """
        objective = self._readable()
        if objective == "causal_lm":
            return self._bits(self._one(texts)[0], length or self.settings.length)
        if length is not None:
            raise ConfigError(f"score: length is for causal language modelling, not for objective {objective!r}")
        if objective == "masked_lm":
            return self._hidden_in_turn(self._one(texts)[0])
        if objective == "matching" and len(texts) == 3:
            first, *others = texts
            pairs = zip(("B", "C"), others, strict=True)
            return {name: float(self.logits(first, other)) for name, other in pairs}
        logits = self.logits(*texts)
        if objective == "matching":
            return {"nearness": float(logits)}
        if objective == "translation":
            _, target = self._tensors(texts, 2)
            return {"target_loss": float(functional.cross_entropy(logits, target[0]))}
        if len(logits) == 1:
            return {"score": float(logits)}
        return {str(index): float(value) for index, value in enumerate(logits.double().softmax(-1))}

    def _bits(self, tokens: Tensor, length: int) -> dict[str, float]:
        if len(tokens) < 2 or length < 1:
            raise ConfigError(f"score: {len(tokens)} tokens, windows of {length}: at least 2 tokens must be given")
        starts = np.arange(0, len(tokens) - 1, length)
        whole = starts[starts + length < len(tokens)]
        rows = max(1, self.settings.evaluation.batch_tokens // length)  # as the test has them: the same sums
        parts = [
            torch.stack([tokens[s : s + length + 1] for s in whole[i : i + rows]]) for i in range(0, len(whole), rows)
        ]
        parts += [tokens[s:][None] for s in starts[len(whole) :]]
        nats = []
        with self.computing():
            for part in parts:
                logits = self.model(part[:, :-1])
                losses = functional.cross_entropy(logits.flatten(0, 1).float(), part[:, 1:].flatten(), reduction="none")
                nats.append(losses.double().view(len(part), -1).sum(1).numpy())
        bits = float((np.concatenate(nats) / math.log(2)).sum()) / (len(tokens) - 1)
        return {"bits_per_character" if self.tokeniser is None else "bits_per_token": bits}

    def _hidden_in_turn(self, tokens: Tensor) -> dict[str, float]:
        """Each token but the special ones hidden alone, as many rows at once as the test has tokens at once."""
        special = (self.tokeniser.pad, self.tokeniser.cls, self.tokeniser.sep, self.tokeniser.mask)
        places = [place for place, token in enumerate(tokens.tolist()) if token not in special]
        if not places:
            raise ConfigError("score: a text with at least one token must be given")
        rows = max(1, self.settings.evaluation.batch_tokens // len(tokens))
        losses, right = 0.0, 0
        with self.computing():
            for first in range(0, len(places), rows):
                some = torch.tensor(places[first : first + rows])
                shown, row = tokens.repeat(len(some), 1), torch.arange(len(some))
                shown[row, some] = self.tokeniser.mask
                guesses = self.model.logits(self.model.hidden(shown)[row, some]).float()
                losses += float(functional.cross_entropy(guesses, tokens[some], reduction="sum").double())
                right += int((guesses.argmax(-1) == tokens[some]).sum())
        return {"masked_loss": losses / len(places), "masked_accuracy": right / len(places)}

    @torch.no_grad()
    def translate(self, source: str) -> str:
        """The best translation that the cell's beam search finds."""
        if self._readable() != "translation":
            raise NotPossibleError(f"not possible: a model of objective {self.settings.objective!r} translates nothing")
        from posenc.objectives.translation import LONGER

        (tokens,), asked, names = self._tensors((source,), 1), self.settings.evaluation, self.tokeniser
        cached = self.settings.backbone.attention == "softmax" and all(
            part.cached_decoding for part in self.model.encodings()
        )
        with self.computing():
            (found,) = translate(
                self.model,
                tokens,
                torch.ones_like(tokens, dtype=torch.bool),
                beam=asked.beam,
                length_penalty=asked.length_penalty,
                limits=[min(self.settings.length, LONGER[0] * tokens.shape[1] + LONGER[1])],
                begin=names.cls,
                end=names.sep,
                banned=(names.pad, names.unknown, names.cls, names.mask),
                cached=cached,
            )
        return self.decode(found)

    @torch.no_grad()
    def attention(self, *texts: Text, part: str | None = None) -> Tensor:
        """The attention weights (layers,H,L,S) of every layer; each row sums to 1.

        They are worked out as the textbook has them, whatever the backend that trained.

        Args:
            texts: one text, or the two of classification and matching; of a translation the source, or both sides.
            part: of a translation, "encoder", "decoder" or "cross" (the target's looks at the source).

        Raises:
            NotPossibleError: attention is linear.
        """
        objective, known = self._readable(), PARTS[self.settings.backbone.form]
        chosen = known[0] if part is None else part
        if chosen not in known:
            raise ConfigError(f"attention: part = {part!r}: allowed: {', '.join(known)}")
        if self.settings.backbone.attention != "softmax":
            raise NotPossibleError(
                f"not possible: attention of {self.cell.name} is linear ({self.settings.backbone.attention}): it never"
                " works out the weights of pairs"
            )
        model = self._made("reference")
        with self.computing(), watched() as seen:
            if objective == "translation":
                source, *target = self._tensors(texts, 1 if chosen == "encoder" and len(texts) == 1 else 2)
                if target:
                    self._translated(model, source, target[0])
                else:
                    model.hidden(source, mask=torch.ones_like(source, dtype=torch.bool))
            elif objective in ("causal_lm", "masked_lm"):
                model.hidden(self._one(texts))
            else:
                tokens = self._one(texts)
                hidden(model, tokens, torch.ones_like(tokens, dtype=torch.bool), ())
        layers = self.settings.backbone.layers
        # An encoder's layers come first; a decoder's that reads a memory attend twice each, to itself and to that.
        places = {"encoder": slice(0, layers), "decoder": slice(layers, None, 2), "cross": slice(layers + 1, None, 2)}
        own = seen[places[chosen]] if len(known) > 1 else seen
        return torch.cat(own)

    def evaluate(self, data: str | Path | None = None) -> list[dict[str, Any]]:
        """Its scores on the task's own test, made again: rows as its record has them under `scores`.

        Args:
            data: where official data lie (or POSENC_DATA), as when it was trained.

        Raises:
            DataError: the data are not at hand, or not those that it was trained on.
        """
        objective = factory.make(self.settings, data_folder(data))
        rows: list[dict[str, Any]] = []
        for split, length in objective.tests:
            rows += evaluation.score(objective, self.model, self.settings.runtime, split, length)[0]
        return rows

    def _readable(self) -> str:
        objective = self.settings.objective
        if objective not in TEXTS:
            raise NotPossibleError(f"not possible: a model of objective {objective!r} reads no text")
        return objective

    def _takes(self, least: int, most: int) -> str:
        names = TEXTS[self.settings.objective]
        many = f"{least} or {most}" if least < most else str(least)
        return f"a model of objective {self.settings.objective!r} takes {many} ({', '.join(names)})"

    def _one(self, texts: Sequence[Text]) -> Tensor:
        """(1,L) tokens of the texts that the model reads in one row."""
        if len(texts) == 1 and not isinstance(texts[0], str | bytes):
            return self._checked(texts[0])
        return self._checked(self.tokenise(*texts))  # type: ignore[arg-type]  # tokens stand alone

    def _tensors(self, texts: Sequence[Text], wanted: int) -> list[Tensor]:
        """Each side's tokens (1,L)."""
        if len(texts) != wanted:
            raise ConfigError(f"{self._takes(wanted, wanted)}, and {len(texts)} were given")
        return [self._checked(self.tokenise(text) if isinstance(text, str | bytes) else text) for text in texts]

    def _checked(self, tokens: Sequence[int]) -> Tensor:
        size = self.settings.backbone.vocabulary
        whole = len(tokens) > 0 and all(isinstance(token, int | np.integer) for token in tokens)
        if not whole or not all(0 <= token < size for token in tokens):
            raise ConfigError(f"tokens must be a row of at least one whole number from 0 to {size - 1}")
        return torch.tensor([[int(token) for token in tokens]])

    @contextmanager
    def computing(self) -> Iterator[None]:
        """In the cell's precision."""
        with precision(self.settings.runtime):
            yield
