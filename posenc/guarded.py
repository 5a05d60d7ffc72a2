"""Hooks that name themselves where they fail: by raising, or giving a wrong shape or type, or no number."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from posenc.encoding import Composite, Context, Encoding
from posenc.errors import NotPossibleError
from posenc.seeds import derive

HOOKS = ("positions", "embed", "rotate_query", "rotate_key", "distance_bias", "score_bias", "mix_values")


class HookError(Exception):
    """A hook that raised, or gave a wrong shape or type, or no number."""


@torch.no_grad()
def ready(encoding: Encoding, seed: int) -> Encoding:
    """Move its parameters off their start, and make each hook, of its parts too, name itself where it fails."""
    generator = torch.Generator().manual_seed(derive(seed, "moved"))
    for parameter in encoding.parameters():
        parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    for part in encoding.modules():
        if isinstance(part, Encoding) and not isinstance(part, Composite):
            for hook in filter(part.overrides, HOOKS):
                name = f"hook {hook} of {type(part).__name__}"
                setattr(part, hook, partial(_guarded, name, hook, getattr(part, hook)))
    return encoding


def _guarded(name: str, hook: str, original: Callable[..., Tensor], *given: Any) -> Tensor:
    try:
        result = original(*given)
    except NotPossibleError:
        raise
    except Exception as error:
        raise HookError(f"{name} raised {type(error).__name__}: {error}") from error
    if not isinstance(result, Tensor):
        raise HookError(f"{name} gave a {type(result).__name__}, and no tensor")
    context: Context = given[-1]
    stack, first = context.stack, tuple(given[0].shape) if isinstance(given[0], Tensor) else ()
    wanted: tuple[int | None, ...] = {  # None: any size will do
        "positions": (None, context.keys, None),
        "embed": first,
        "distance_bias": (stack.heads, *first),
        "score_bias": (None, stack.heads, context.queries, context.keys),
        "mix_values": (*first[:3], stack.head_width),
    }.get(hook, (*first[:3], None))
    if len(wanted) != result.dim() or any(w not in (None, size) for w, size in zip(wanted, result.shape, strict=True)):
        sizes = ", ".join("any" if size is None else str(size) for size in wanted)
        raise HookError(f"{name} gave shape {tuple(result.shape)} where ({sizes}) is wanted")
    if hook in ("embed", "rotate_query", "rotate_key") and result.dtype != given[0].dtype:
        raise HookError(f"{name} gave {result.dtype} where {given[0].dtype} is wanted")
    if not (result.isfinite() | (result == (-torch.inf if hook.endswith("bias") else 0))).all():
        raise HookError(f"{name} gave values that are not finite")
    return result
