"""Each softmax backend that serves an encoding here, against the plain form; and a whole model in bf16."""

from __future__ import annotations

import torch

from posenc.attention.softmax.call import Needs
from posenc.attention.softmax.kernel import BACKENDS, Softmax, choose
from posenc.backbone.transformer import Transformer
from posenc.common.errors import NotPossibleError
from posenc.properties.subject import Outcome, Subject, apart, over, shown

COMPILES = "flex"
"""Left out on a CPU: it compiles a kernel for each encoding, without gradients."""
BF16 = 0.05
"""Of a state's norm: 8 bits of a number, through two layers."""


@torch.no_grad()
def backends(subject: Subject) -> Outcome:
    """Each backend of softmax attention that takes it on a CPU gives what explicit weights give."""
    measured, refused = dict[str, float](), dict[str, str]()
    for stack, model, encoding in subject.models(kind="softmax"):
        _take(model, "reference")
        plain = subject.run(model, subject.tokens())
        for backend in BACKENDS[2:]:
            if backend == COMPILES:
                continue
            try:
                for layer in range(model.config.layers):
                    choose(backend, Needs(encoding.at(layer), 0.0, "cpu"))
            except NotPossibleError as error:
                refused[backend] = str(error)
                continue
            _take(model, backend)
            measured[f"{stack} {backend}"] = apart(subject.run(model, subject.tokens()), plain)
    if not measured:
        return "", "", "; ".join(refused.values()) or "it serves no softmax attention"
    note = f"; not taken by {', '.join(refused)}" if refused else ""
    return "the same", f"{shown(measured)}{note}", over(measured, "a backend gives something else")


def _take(model: Transformer, backend: str) -> None:
    for module in model.modules():
        if isinstance(module, Softmax):
            module.asked = backend


@torch.no_grad()
def mixed_precision(subject: Subject) -> Outcome:
    """A whole model under bf16 autocast, as a GPU trains it, stays near float64."""
    measured = {}
    for (stack, model, _), (_, low, _) in zip(subject.models(), subject.models(), strict=True):
        wanted = subject.run(model, subject.tokens())
        with torch.autocast("cpu", torch.bfloat16):
            given = subject.run(low.float(), subject.tokens()).double()
        measured[stack] = ((given - wanted).norm() / wanted.norm()).item()
    return "near", shown(measured), over(measured, f"off by more than {BF16} of the norm", BF16)
