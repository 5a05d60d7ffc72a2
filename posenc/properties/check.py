"""Does an encoding do what it declares? Small models in float64, and its hooks alone. Needs torch alone.

`posenc check ENCODING` is a view of this. Each measurement is one function, named as its Finding; its docstring is the
sentence that says what was measured. What fails inside a hook becomes a failed Finding that names the hook. Parameters
are moved off their start, so that what starts from zero is measured too.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from posenc.api.blame import HookError, blamed, said
from posenc.properties.backends import backends, mixed_precision
from posenc.properties.declared import attention, loads, order, translation
from posenc.properties.graph import graph, memory
from posenc.properties.hooks import low_precision, norms, positions
from posenc.properties.layers import layers
from posenc.properties.leaks import cached_decoding, causality, lengths, packed_rows, padding
from posenc.properties.linear import beside_softmax, linear_form
from posenc.properties.parameters import gradients, start
from posenc.properties.randomness import left_alone, random_state, repeatable
from posenc.properties.saturation import saturation
from posenc.properties.stored import state
from posenc.properties.subject import AFFORDABLE, LENGTH, Finding, Subject, default_lengths

__all__ = ["AFFORDABLE", "MEASUREMENTS", "Finding", "default_lengths", "measure", "passed"]

MEASUREMENTS = (
    loads, attention, causality, padding, packed_rows, translation, order, norms, positions, layers, gradients,
    backends, low_precision, mixed_precision, linear_form, beside_softmax, saturation, cached_decoding, random_state,
    repeatable, start, state, graph, memory, lengths,
)  # fmt: skip


def measure(
    encoding: str, *, seed: int = 0, length: int = LENGTH, lengths: Sequence[int] | None = None,
    names: Collection[str] | None = None,
) -> list[Finding]:  # fmt: skip
    """Hold an encoding, as written (`rope(base=500000)`, `sinusoidal+rope`), against what it declares.

    Args:
        length: tokens of a short row, where each token is tried; the models are trained on twice as many.
        lengths: the others at which leaks are looked for; None for the multiples of the trained length that suites
            score, and some beyond.
        names: of the findings asked for; None for all.

    Raises:
        PosencError: no such encoding or option, its package cannot be loaded, or a length is too long to be checked.
    """
    findings = []
    with left_alone():
        subject = Subject(encoding, seed, length, lengths)
        for measurement in MEASUREMENTS:
            name, what = measurement.__name__.replace("_", " "), measurement.__doc__ or ""
            if names is not None and name not in names:
                continue
            try:
                can = subject.served or measurement in (loads, attention)
                declared, measured, wrong = measurement(subject) if can else ("", "", "it serves no stack")
                findings.append(Finding(name, what, declared, measured, not wrong if measured else None, wrong))
            except Exception as error:  # a plug-in may fail in any way: the other measurements go on
                text = str(error) if isinstance(error, HookError) else blamed(error) or said(error)
                findings.append(Finding(name, what, "", text, False, "it could not be measured"))
    return findings


def passed(findings: Sequence[Finding]) -> bool:
    """Whether nothing failed."""
    return all(finding.passed is not False for finding in findings)
