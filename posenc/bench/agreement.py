"""Every encoding, attention, form and backend on a device against the CPU in float64: a row for each comparison.

Few and large: one batch holds a whole row, a padded and a packed one, and the float64 model of a case serves all
backends and precisions, which share their compiled kernels in a process.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from posenc.api import registry
from posenc.api.blame import said
from posenc.attention.softmax.call import Needs
from posenc.attention.softmax.kernel import BACKENDS, choose, require_kernel
from posenc.backbone.config import BackboneConfig
from posenc.backbone.transformer import Transformer
from posenc.common.errors import NotPossibleError

TOLERANCE = {"float32": 2e-4, "bfloat16": 6e-2}
"""Largest difference of hidden states (of a size near 1), and of gradients relative to their norm, from float64."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
MORE = ("sinusoidal+rope", "t5+rope", "t5+shaw+rope")
KINDS = ("whole", "padded", "packed", "mixed")
"""Of a batch's rows; mixed: one of each, which is what most comparisons take."""
Row = dict[str, Any]


def encodings() -> list[str]:
    """All built-in ones of one axis, and some composed."""
    return [name for name in registry.BUILT_IN if registry.load(name).axes in (None, 1)] + list(MORE)


def batch(kind: str, length: int) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Three rows: tokens, their mask, their segments."""
    tokens = torch.randint(256, (3, length), generator=torch.Generator().manual_seed(0))
    whole, part = torch.ones(3, length, dtype=torch.bool), torch.zeros(3, length, dtype=torch.long)
    mask, segments = whole.clone(), part.clone()
    padded = [1] if kind == "mixed" else [1, 2]
    packed = [2] if kind == "mixed" else [0, 1, 2]
    mask[padded, length - length // 4 :] = False
    segments[packed, length // 3 :] = 1
    segments[packed, length // 3 + 3 :] = 2
    return (
        tokens,
        mask if kind in ("padded", "mixed") else None,
        segments if kind in ("packed", "mixed") else None,
    )


def compare(names: Sequence[str], device: str, *, length: int = 128, tiny: bool = False) -> Iterator[Row]:
    """A row for each encoding, attention, form, rows, backend and precision; what cannot be has its reason."""
    for name in names:
        for attention in ("softmax", "performer"):
            for form in ("decoder", "encoder"):
                for kind in ("mixed",) if tiny else ("whole", "mixed", "packed"):
                    yield from _case(name, attention, form, kind, device, length)


def _case(name: str, attention: str, form: str, kind: str, device: str, length: int) -> Iterator[Row]:
    given = batch(kind, length)
    case: Row = {"encoding": name, "attention": attention, "form": form, "rows": kind}
    try:
        exact = _run(_model(name, attention, form, length, "auto", "cpu").double(), *given)
    except NotPossibleError as error:
        yield case | {"backend": "", "precision": "", "passed": None, "reason": str(error)}
        return
    # Packed rows alone are a form of their own to xformers; to all others the mixed batch says the same.
    backends = ("xformers",) if kind == "packed" else BACKENDS[1:] if attention == "softmax" else ("auto",)
    for backend in backends if attention == "softmax" or kind != "packed" else ():
        for precision, tolerance in TOLERANCE.items():
            row = case | {"backend": backend, "precision": precision, "tolerance": tolerance}
            try:
                yield row | _held(name, attention, form, backend, precision, device, given, exact)
            except NotPossibleError as error:
                yield row | {"passed": None, "reason": str(error)}
            except Exception as error:
                yield row | {"passed": False, "reason": said(error)}


def _held(
    name: str, attention: str, form: str, backend: str, precision: str, device: str,
    given: tuple[Tensor, Tensor | None, Tensor | None], exact: tuple[Tensor, Tensor],
) -> Row:  # fmt: skip
    model = _model(name, attention, form, given[0].shape[1], backend, device, DTYPES[precision])
    with torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16"):
        mask, segments = (None if part is None else part.to(device) for part in given[1:])
        got, gradient = _run(model, given[0].to(device), mask, segments)
    error = (got - exact[0]).abs().max().item()
    off = ((gradient - exact[1]).norm() / exact[1].norm()).item()
    passed = max(error, off) < TOLERANCE[precision]
    reason = None if passed else f"off by {error:.1e}, its gradient by {off:.1e}"
    return {"error": error, "gradient_error": off, "passed": passed, "reason": reason}


def _model(
    name: str, attention: str, form: str, length: int, backend: str, device: str, dtype: torch.dtype = torch.float32
) -> Transformer:
    """A model that starts as any other of its case.

    Raises:
        NotPossibleError: the encoding cannot be in it, or the backend cannot run it here.
    """
    config = BackboneConfig(
        form=form, layers=2, width=128, heads=4, feedforward=256, attention=attention, features=64,  # type: ignore[arg-type]
    )  # fmt: skip
    model = Transformer(config, name, length, backend).initialise(0)
    if attention == "softmax":
        for part in model.encodings():
            for layer in range(config.layers):
                choose(backend, Needs(part.at(layer), 0.0, device, True, tokens=length))
        require_kernel(backend, device, dtype)
    return model.to(device).begin_step(0, 0)


def _run(
    model: Transformer, tokens: Tensor, mask: Tensor | None, segments: Tensor | None
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Hidden states at real tokens, and the gradient of their mean square, on the CPU in float64."""
    hidden = model.hidden(tokens, mask=mask, segments=segments)
    hidden = hidden if mask is None else hidden[mask]
    hidden.to(torch.promote_types(hidden.dtype, torch.float32)).square().mean().backward()
    gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    return hidden.detach().double().cpu(), gradient.double().cpu()
