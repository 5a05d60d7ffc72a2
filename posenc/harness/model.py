"""A causal language model as lm-evaluation-harness asks it: how likely text is after text, and what comes next."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from lm_eval.api.model import TemplateLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from torch import Tensor

from posenc.backbone.transformer import Transformer
from posenc.common.errors import ConfigError, NotPossibleError
from posenc.data.tokens import Tokeniser

GENERATED = 256
"""Tokens that are generated at most, where a task does not say."""
Request = tuple[tuple[str, str] | None, list[int], list[int]]
"""Context and continuation as texts, where there are any, and as tokens."""


class HarnessLM(TemplateLM):  # type: ignore[misc]  # the harness has no types that mypy reads
    """A model with its tokeniser; on whatever device and in whatever precision it is.

    Args:
        tokeniser: None where tokens are bytes.
        window: tokens of the longest row that it reads.
        batch_tokens: that it reads at once.

    Raises:
        NotPossibleError: its encoding ends before the window does. ConfigError: the window is less than a token.
    """

    def __init__(
        self, model: Transformer, tokeniser: Tokeniser | None, window: int, batch_tokens: int, name: str = ""
    ) -> None:
        super().__init__()
        if window < 1:
            raise ConfigError(f"length = {window}: must be at least 1")
        for encoding in model.encodings():
            encoding.require_length(window)
        self.model, self.tokeniser, self.window = model, tokeniser, window
        self.batch_tokens, self.name = batch_tokens, name

    @property
    def max_length(self) -> int:
        return self.window

    @property
    def eot_token_id(self) -> int:
        """What stands before a text: [SEP], which ends each text in training; of bytes a line's end, as none does."""
        return self.tok_encode("\n")[-1] if self.tokeniser is None else self.tokeniser.sep

    @property
    def tokenizer_name(self) -> str:
        return self.name

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **more: Any) -> list[int]:
        """Its bytes or tokens; no special ones among them."""
        return list(string.encode() if self.tokeniser is None else self.tokeniser.encode([string])[0])

    def tok_decode(self, tokens: Sequence[int]) -> str:
        if self.tokeniser is None:
            return bytes(tokens).decode(errors="replace")
        return str(self.tokeniser.decode(tokens))

    def _loglikelihood_tokens(
        self, requests: list[Request], disable_tqdm: bool = False, **more: Any
    ) -> list[tuple[float, bool]]:
        """For each request the continuation's log-probability, and whether greedy decoding would give it.

        A continuation longer than the window is taken in parts, each after as much as fits of what stands before it.
        """
        rows: list[tuple[int, list[int], int]] = []  # request, tokens, how many of them are asked
        for index, (_, context, continuation) in enumerate(requests):
            whole = (context or [self.prefix_token_id]) + continuation
            first = len(whole) - len(continuation)
            for start in range(first, len(whole), self.window):
                end = min(start + self.window, len(whole))
                rows.append((index, whole[max(0, end - self.window - 1) : end], end - start))
        sums, greedy = [0.0] * len(requests), [True] * len(requests)
        for part in _batches(rows, self.batch_tokens):
            longest = max(len(tokens) for _, tokens, _ in part)
            padded = torch.tensor([tokens + [0] * (longest - len(tokens)) for _, tokens, _ in part])
            logits = self.logits(padded[:, :-1])  # what pads stands behind, where a causal model does not look
            for (index, tokens, asked), row in zip(part, logits, strict=True):
                said = row[len(tokens) - 1 - asked : len(tokens) - 1].double().log_softmax(-1)
                wanted = torch.tensor(tokens[-asked:])
                sums[index] += float(said.gather(1, wanted[:, None]).sum())
                greedy[index] = greedy[index] and bool((said.argmax(-1) == wanted).all())
        answers = list(zip(sums, greedy, strict=True))
        for (texts, _, _), answer in zip(requests, answers, strict=True):
            if texts is not None:
                self.cache_hook.add_partial("loglikelihood", texts, answer)
        return answers

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        """The log-probability of each whole text, every token of it told once."""
        asked: list[Request] = []
        counts = []
        for request in requests:
            (text,) = request.args
            windows = get_rolling_token_windows(
                token_list=self.tok_encode(text), prefix_token=self.prefix_token_id, max_seq_len=self.window,
                context_len=1,
            )  # fmt: skip
            own = [(None, *make_disjoint_window(window)) for window in windows]
            asked += own
            counts.append(len(own))
        told = iter(self._loglikelihood_tokens(asked))
        found = [sum(next(told)[0] for _ in range(count)) for count in counts]
        for request, total in zip(requests, found, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return found

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """The likeliest token, again and again, up to one of the texts `until` or so many tokens.

        Raises:
            NotPossibleError: a task wants samples.
        """
        return [self._generated(*request.args) for request in requests]

    def _generated(self, context: str, asked: dict[str, Any]) -> str:
        if asked.get("do_sample") or asked.get("temperature") not in (None, 0, 0.0):
            raise NotPossibleError("not possible: posenc decodes greedily, and the task wants samples")
        given = asked.get("until") or []
        until = [given] if isinstance(given, str) else list(given)
        tokens = self.tok_encode(context) if context else [self.prefix_token_id]
        made: list[int] = []
        for _ in range(int(asked.get("max_gen_toks", GENERATED))):
            (row,) = self.logits(torch.tensor([(tokens + made)[-self.window :]]))
            made.append(int(row[-1].argmax()))
            text = self.tok_decode(made)
            if ends := [place for stop in until if stop and (place := text.find(stop)) >= 0]:
                return text[: min(ends)]
        return self.tok_decode(made)

    @torch.no_grad()
    def logits(self, tokens: Tensor) -> Tensor:
        """(B,L,vocabulary) of tokens (B,L), on the CPU, in float32 or what is finer."""
        device = next(self.model.parameters()).device
        out: Tensor = self.model(tokens.to(device))
        return out.to(torch.promote_types(out.dtype, torch.float32)).cpu()


class Uniform(HarnessLM):
    """Every token is as likely as any other, whatever stands before it: what a guess scores."""

    def __init__(self, tokeniser: Tokeniser, window: int, batch_tokens: int) -> None:
        TemplateLM.__init__(self)
        self.tokeniser, self.window, self.batch_tokens, self.name = tokeniser, window, batch_tokens, "uniform"

    def logits(self, tokens: Tensor) -> Tensor:
        assert self.tokeniser is not None
        return torch.zeros(1, 1, 1).expand(*tokens.shape, self.tokeniser.size)


def _batches(rows: list[tuple[int, list[int], int]], tokens: int) -> Iterator[list[tuple[int, list[int], int]]]:
    """Rows of about one length together, as many as make so many tokens."""
    part: list[tuple[int, list[int], int]] = []
    for row in sorted(rows, key=lambda one: -len(one[1])):
        if part and (len(part) + 1) * len(part[0][1]) > tokens:
            yield part
            part = []
        part.append(row)
    if part:
        yield part
