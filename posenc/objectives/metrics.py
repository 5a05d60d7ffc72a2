"""Every metric of posenc's own objectives, told once; the report reads from a record how each is made from items."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from posenc.api.metric import Metric, mean

ACCURACY = mean("accuracy", "accuracy", "higher", test="mcnemar")
PLACES_ACCURACY = mean("accuracy", "accuracy", "higher")
"""Of rows with several answers each: no row is right or wrong as a whole, as in ACCURACY."""
ACCURACY_NORM = mean("accuracy_norm", "accuracy, by likelihood a character", "higher", test="mcnemar")
EXACT_MATCH = Metric("exact_match", "exact match", "higher", "mean", ("exact_match", "rows"), test="mcnemar")
F1 = Metric("f1", "F1", "higher", "f1", ("answer", "truth"))
MATTHEWS = Metric("matthews", "Matthews' correlation", "higher", "matthews", ("answer", "truth"))
SPEARMAN = Metric("spearman", "Spearman's rank correlation", "higher", "spearman", ("answer", "truth"))
PEARSON = Metric("pearson", "Pearson's correlation", "higher", "pearson", ("answer", "truth"))
BITS_PER_CHARACTER = Metric(
    "bits_per_character", "bits per character", "lower", "mean", ("bits_per_character", "weight"), running=True
)  # fmt: skip
BITS_PER_BYTE = Metric("bits_per_byte", "bits per byte", "lower", "mean", ("bits", "bytes"), running=True)
PERPLEXITY = Metric("perplexity", "perplexity", "lower", "exp_mean", ("nats", "weight"), running=True)
WORD_PERPLEXITY = Metric(
    "word_perplexity", "perplexity by word", "lower", "exp_mean", ("nats", "words"), running=True
)  # fmt: skip
MASKED_LOSS = Metric("masked_loss", "masked loss (nats)", "lower", "mean", ("masked_loss", "weight"), running=True)
MASKED_ACCURACY = Metric(
    "masked_accuracy", "masked accuracy", "higher", "mean", ("masked_accuracy", "weight"), running=True
)  # fmt: skip
BLEU = Metric("bleu", "BLEU (sacreBLEU)", "higher", "bleu", ("translation", "reference"))
TARGET_LOSS = mean("target_loss", "loss (nats a token)", "lower")
CROSS_ENTROPY = mean("cross_entropy", "cross-entropy (nats)", "lower")

KNOWN = {
    metric.name: metric
    for metric in (
        ACCURACY, ACCURACY_NORM, EXACT_MATCH, F1, MATTHEWS, SPEARMAN, PEARSON, BITS_PER_CHARACTER, BITS_PER_BYTE,
        PERPLEXITY, WORD_PERPLEXITY, MASKED_LOSS, MASKED_ACCURACY, BLEU, TARGET_LOSS, CROSS_ENTROPY,
    )
}  # fmt: skip


def read(written: Mapping[str, Any]) -> Metric:
    """A metric as a record has it. What a record of an earlier posenc does not say is that of posenc's own by its name.

    A record's metric that this posenc cannot use (a later one's, a damaged one) has no interval over items.
    """
    name = str(written["name"])
    told = {key: written[key] for key in (field.name for field in fields(Metric)) if key in written}
    told |= {"items": tuple(told["items"])} if "items" in told else {}
    plain: dict[str, Any] = {"name": name, "title": name, "better": "higher"}
    try:
        return Metric(**{**(asdict(KNOWN[name]) if name in KNOWN else plain), **told})
    except (ValueError, TypeError):
        return Metric(**plain)


def exp(value: float) -> float:
    """e to the power of a value; infinite where no number has room for it."""
    return math.exp(value) if value < 700 else math.inf
