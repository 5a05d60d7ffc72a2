"""Objectives that measure a model and teach it nothing; and what they find of its heads, as scores."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from posenc.api.metric import Metric
from posenc.api.objective import Batch, Objective, Scored
from posenc.backbone.transformer import Transformer
from posenc.common.errors import NotPossibleError
from posenc.properties.anatomy import NO_SCORES, Anatomy, look
from posenc.properties.sensitivity import EDITS, Sensitivity, sensitivity
from posenc.properties.similarity import similarity, why_not

BY_HEAD = {
    "mean_distance": "mean attended distance (tokens)",
    "entropy": "entropy of attention (nats)",
    "evenness": "entropy of attention over that of uniform attention",
    "first_token": "share of attention on the first token",
    "to_scores": "change of scores by the encoding, relative",
    "to_values": "what the encoding adds to values, relative",
}
"""Each a mean over layers and heads; the arrays of a cell have them one by one (layers, H)."""
ANATOMY = (
    *(Metric(name, title, "neither") for name, title in BY_HEAD.items()),
    Metric("to_embeddings", "what the encoding adds to embeddings, relative", "neither"),
    *(Metric(f"kl_{edit}", f"change of predictions, context {edit} (nats a token)", "neither") for edit in EDITS),
)
"""They describe: of none is less or more better."""


class Measuring(Objective):
    """An objective without a batch: its task has no step, and it scores the model that it is given."""

    learns = False

    def batch(self, seed: int, step: int, rows: int) -> Batch:
        raise NotImplementedError("nothing is learnt")

    def targets(self, batch: Batch) -> int:
        raise NotImplementedError("nothing is learnt")

    def seen(self, batch: Batch) -> int:
        raise NotImplementedError("nothing is learnt")

    def loss(self, model: Transformer, batch: Batch) -> Tensor:
        raise NotImplementedError("nothing is learnt")

    def baselines(self) -> dict[str, float]:
        return {}


def anatomy(model: Transformer, tokens: Tensor, targets: Tensor) -> Scored:
    """What `posenc.properties` finds of a model on tokens (B,L); targets (B,L) are below 0 where there is none.

    `each` holds arrays by layer and head: the metrics', and by `distances` (N,) `weight`, `score` and `similarity`
    (layers,H,N), and `maps` (layers,H,M,M) of the first row. Floats of 32 bits, maps of 16.
    """
    device = next(model.parameters()).device
    found = look(model, tokens.to(device))
    changes = sensitivity(model, tokens.to(device), targets.to(device))
    arrays: dict[str, Tensor | None] = {name: getattr(found, name) for name in BY_HEAD}
    values = {name: float(array.mean()) for name, array in arrays.items() if array is not None}
    values |= {"to_embeddings": found.to_embeddings} | {f"kl_{edit}": changes.divergence[edit] for edit in EDITS}
    curves, why = _curves(model, found, tokens.shape[1])
    each = {name: array.numpy().astype("float32") for name, array in (arrays | curves).items() if array is not None}
    each |= {"maps": found.maps.numpy().astype("float16"), "distances": found.distances.numpy().astype("int32")}
    details = {"why": why, **_losses(changes)} if why else _losses(changes)
    return Scored(values, len(tokens), details, each, {name: why[name] for name in BY_HEAD if name in why})


def _curves(model: Transformer, found: Anatomy, length: int) -> tuple[dict[str, Tensor | None], dict[str, str]]:
    """By distance, and of each that there is not, why."""
    curves = {"weight": found.weight, "score": found.score, "similarity": None}
    encoding, why = model.encodings()[0], dict(found.why)
    reason = why_not(encoding) if model.config.attention == "softmax" else NO_SCORES
    if reason is not None:
        why["similarity"] = reason
        return curves, why
    try:
        curves["similarity"] = similarity(encoding, length)
    except NotPossibleError as error:
        why["similarity"] = str(error)
    return curves, why


def _losses(changes: Sensitivity) -> dict[str, Any]:
    return {} if changes.loss is None else {"loss": changes.loss, "rise_of_loss": changes.rise}
