"""The theory's properties (RoFormer, section 3) as scores: of the encoding as it starts, with nothing trained."""

from __future__ import annotations

from dataclasses import asdict

from posenc.api.metric import Metric
from posenc.api.objective import Scored
from posenc.backbone.transformer import Transformer
from posenc.config.settings import Settings
from posenc.objectives.measuring import Measuring
from posenc.properties import theory

TITLES = {
    "relative_error": "change of scores when all positions shift, relative",
    "norm_error": "change of norms under the rotation, relative",
    "sparse_error": "sparse product less the whole matrix",
    "bound_decay": "bound at far distances, over distance 0",
    "same_decay": "score of a token with itself at far distances, over distance 0",
}


class Theory(Measuring):
    """Each property of `posenc.properties.theory` is a metric; what is no question of an encoding says why.

    `details` say which claims hold ("holds": metric to True or False) and give the curves of Figure 2.
    """

    name = "theory"
    form = "encoder"
    tokenisers = ("bytes",)
    reads = False
    metrics = tuple(Metric(name, title, "lower") for name, title in TITLES.items())

    @classmethod
    def make(cls, settings: Settings, data: None, tokens: None) -> Theory:
        return cls(settings.length, settings.seed)

    def __init__(self, length: int, seed: int) -> None:
        self.length, self.seed = length, seed
        self.tests = [("theory", length)]
        self.data = {"name": "no data", "digest": None, "note": "nothing is trained", "generated": False}

    def score(self, model: Transformer, split: str, length: int) -> Scored:
        encoding = model.encodings()[0].cpu().double()
        found, curves = theory.measure(encoding, self.seed)
        values = {name: answer.value for name, answer in found.items() if answer.value is not None}
        why = {name: answer.why for name, answer in found.items() if answer.value is None}
        holds = {name: values[name] <= limit for name, limit in theory.LIMITS.items() if name in values}
        details = {"holds": holds, "limits": theory.LIMITS, **({} if isinstance(curves, str) else asdict(curves))}
        return Scored(values, 1, details, why=why)
