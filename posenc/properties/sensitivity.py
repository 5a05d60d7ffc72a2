"""How much a model's predictions change when the tokens before them change places."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from posenc.api.autocast import without_autocast
from posenc.backbone.transformer import Transformer
from posenc.common.errors import ConfigError
from posenc.common.seeds import derive
from posenc.properties.anatomy import WEIGHTS_AT_ONCE, steady, the_stack

PREDICTED = 4
"""One token in so many, the last of a row, is predicted; those before are the context."""
SHORTEST = 4


@dataclass
class Sensitivity:
    """By edit, in nats a token.

    Attributes:
        divergence: KL(as it was || edited) of the predictions at the last quarter of each row.
        rise: of their loss, where targets were given.
        loss: as it was; None without targets.
    """

    divergence: dict[str, float] = field(default_factory=dict)
    rise: dict[str, float] = field(default_factory=dict)
    loss: float | None = None


def _shuffled(count: int, generator: torch.Generator) -> Tensor:
    return torch.randperm(count, generator=generator)


def _shifted(count: int, generator: torch.Generator) -> Tensor:
    """All move one place on, the last to the front."""
    return torch.arange(count).roll(1)


def _swapped(count: int, generator: torch.Generator) -> Tensor:
    order = torch.arange(count)
    one, other = torch.randperm(count, generator=generator)[:2].tolist()
    order[one], order[other] = other, one
    return order


EDITS: dict[str, Callable[[int, torch.Generator], Tensor]] = {
    "shuffled": _shuffled, "shifted": _shifted, "swapped": _swapped,
}  # fmt: skip
"""What is done to a context: all its tokens in a random order, all a place further on, two of them exchanged."""


def edited(tokens: Tensor, edit: str, seed: int = 0) -> Tensor:
    """Tokens (B,L) with each row's context edited; its last quarter stays. The edit hangs on seed and row alone."""
    kept = tokens.shape[1] - tokens.shape[1] // PREDICTED
    out = tokens.clone()
    for row in range(len(tokens)):
        generator = torch.Generator().manual_seed(derive(seed, "anatomy", edit, row))
        out[row, :kept] = tokens[row, EDITS[edit](kept, generator).to(tokens.device)]
    return out


@torch.no_grad()
def sensitivity(model: Transformer, tokens: Tensor, targets: Tensor | None = None, seed: int = 0) -> Sensitivity:
    """How much the predictions at the last quarter of rows (B,L) change with each edit of the context before them.

    Args:
        targets: (B,L) the true token at each place; places that are negative are not scored.

    Raises:
        ConfigError: rows of fewer than SHORTEST tokens. NotPossibleError: as `look` has it.
    """
    rows, length = tokens.shape
    if length < SHORTEST:
        raise ConfigError(f"sensitivity: rows of {length} tokens: at least {SHORTEST} must be given")
    the_stack(model, length)
    config, last = model.config, length // PREDICTED
    together = max(1, WEIGHTS_AT_ONCE // max(config.heads * length * length, last * config.vocabulary))
    truth = None if targets is None else targets[:, -last:]
    sums, places, scored = dict.fromkeys(("", *EDITS), 0.0), rows * last, 0
    losses = dict(sums)
    changed = {"": tokens} | {edit: edited(tokens, edit, seed) for edit in EDITS}
    for first in range(0, rows, together):
        part = slice(first, first + together)
        before = _predicted(model, tokens[part], last)
        for edit, rows_of in changed.items():
            after = before if edit == "" else _predicted(model, rows_of[part], last)
            sums[edit] += (before.exp() * (before - after)).sum().item()
            if truth is not None:
                losses[edit] += _loss(after, truth[part])
        scored += 0 if truth is None else int((truth[part] >= 0).sum())
    found = Sensitivity({edit: sums[edit] / places for edit in EDITS})
    if scored:
        found.loss = losses[""] / scored
        found.rise = {edit: (losses[edit] - losses[""]) / scored for edit in EDITS}
    return found


def _predicted(model: Transformer, tokens: Tensor, last: int) -> Tensor:
    """Log-probabilities (B,last,vocabulary) at the last places, in float64."""
    with steady(model), without_autocast(tokens.device):
        return model.logits(model.hidden(tokens)[:, -last:]).double().log_softmax(-1)


def _loss(logs: Tensor, truth: Tensor) -> float:
    losses = functional.nll_loss(logs.flatten(0, 1), truth.flatten(), ignore_index=-1, reduction="sum")
    return losses.item()
