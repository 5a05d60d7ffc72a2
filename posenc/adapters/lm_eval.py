"""A model that posenc trained, in lm-evaluation-harness: the extra `posenc[lm-eval]`.

    model = PosencLM("results/quick", "enwik8/softmax/rope/L64/s0")
    found = evaluate(model, ["my_task"], include=Path("my_tasks"))["results"]

Causal language models alone. Rows are no longer than the trained length, or than `length` says. Scores follow the
harness: a continuation's log-probability given what stands before it, and whole texts in windows side by side, of which
the last is filled up with context. Where two choices score the same, the harness takes the first: a model that tells
nothing apart scores what the first choice does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from torch import Tensor

from posenc.common.errors import ConfigError, NotPossibleError
from posenc.trained import Trained, load

GENERATED = 256
"""Tokens that are generated at most, where a task does not say."""
Request = tuple[tuple[str, str] | None, list[int], list[int]]
"""Context and continuation as texts, where there are any, and as tokens."""


@register_model("posenc")
class PosencLM(TemplateLM):  # type: ignore[misc]  # the harness has no types that mypy reads
    """A causal language model of posenc, as the harness asks it.

    Args:
        results: a model, the folder of a suite's results, or a folder that `posenc export` wrote.
        cell: the cell's name or id, of a suite's results.
        length: tokens of the longest row that it reads; by default the trained length.
        given: what the harness hands every model (batch_size, device): batches are those of the cell's own
            evaluation, on the CPU.

    Raises:
        NotPossibleError: it is no causal language model, or its encoding ends before `length`.
        StoreError: there is no such model.
    """

    def __init__(
        self, results: Trained | str | Path, cell: str | None = None, *, length: int | None = None, **given: Any
    ) -> None:
        super().__init__()
        if unknown := set(given) - {"batch_size", "max_batch_size", "device"}:
            raise ConfigError(f"PosencLM: unknown {', '.join(sorted(unknown))}: known: results, cell, length")
        self.trained = results if isinstance(results, Trained) else load(results, cell)
        settings = self.trained.settings
        if settings.objective != "causal_lm":
            raise NotPossibleError(
                f"not possible: lm-evaluation-harness asks how likely text is after text, and {self.trained.cell.name}"
                f" is a model of objective {settings.objective!r}, not 'causal_lm'"
            )
        self.window = settings.length if length is None else int(length)
        if self.window < 1:
            raise ConfigError(f"PosencLM: length = {length}: must be at least 1")
        for encoding in self.trained.model.encodings():
            encoding.require_length(self.window)

    @property
    def max_length(self) -> int:
        return self.window

    @property
    def eot_token_id(self) -> int:
        """What stands before a text: a line's end, since no token of its own ends a text in training."""
        return self.tok_encode("\n")[-1]

    @property
    def tokenizer_name(self) -> str:
        return self.trained.cell.name

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **more: Any) -> list[int]:
        """Its bytes or tokens; there are no special ones."""
        return self.trained.tokenise(string)

    def tok_decode(self, tokens: Sequence[int]) -> str:
        return self.trained.decode(tokens)

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
        for part in _batches(rows, self.trained.settings.evaluation.batch_tokens):
            longest = max(len(tokens) for _, tokens, _ in part)
            padded = torch.tensor([tokens + [0] * (longest - len(tokens)) for _, tokens, _ in part])
            logits = self._logits(padded[:, :-1])  # what pads stands behind, where a causal model does not look
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
            (row,) = self._logits(torch.tensor([(tokens + made)[-self.window :]]))
            made.append(int(row[-1].argmax()))
            text = self.tok_decode(made)
            if ends := [place for stop in until if stop and (place := text.find(stop)) >= 0]:
                return text[: min(ends)]
        return self.tok_decode(made)

    @torch.no_grad()
    def _logits(self, tokens: Tensor) -> Tensor:
        with self.trained.computing():
            out: Tensor = self.trained.model(tokens).float()
        return out


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


def evaluate(model: PosencLM, tasks: Sequence[str], include: Path | None = None, **more: Any) -> dict[str, Any]:
    """What the harness finds of a model: `simple_evaluate`, offline, of the tasks in a folder of YAML files.

    Args:
        tasks: their names. include: the folder; None for the harness's own tasks, which fetch their data.
        more: of `simple_evaluate`, such as `limit` or `num_fewshot`. bootstrap_iters is 0 where it does not say.
    """
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=None if include is None else str(include), include_defaults=include is None)
    with _no_commit():
        found: dict[str, Any] = simple_evaluate(
            model=model, tasks=list(tasks), task_manager=manager, **{"bootstrap_iters": 0, **more}
        )
    return found


@contextmanager
def _no_commit() -> Iterator[None]:
    """The harness asks git for the commit of wherever it runs, which is none of the model's."""
    with patch("lm_eval.evaluator.get_git_commit_hash", return_value=None):
        yield
