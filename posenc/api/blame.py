"""Who is at fault: hooks that name themselves where they fail, and errors traced back to their encoding."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from traceback import walk_tb
from typing import Any

import torch
from torch import Tensor

from posenc.api.composite import Composite
from posenc.api.encoding import HOOKS, Context, Encoding
from posenc.common.errors import FaultyPluginError, NotPossibleError, PosencError
from posenc.common.seeds import derive


class HookError(Exception):
    """A hook that raised, or gave a wrong shape or type, or no number."""


def said(error: BaseException) -> str:
    """An error in a line: its kind, and the first line of what it says."""
    first = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def blamed(error: BaseException) -> str | None:
    """Which method of which encoding an error came out of, and the error; None where it came out of none.

    Read from the traceback, so that hooks that work pay nothing for it. Of several, the outermost that an author wrote.
    """
    for frame, _ in walk_tb(error.__traceback__):
        code = frame.f_code
        owner = frame.f_locals.get(code.co_varnames[0]) if code.co_argcount else None
        ours = frame.f_globals.get("__name__") in (Encoding.__module__, Composite.__module__)
        if not ours and isinstance(owner, Encoding) and hasattr(type(owner), code.co_name):
            kind = type(owner).__name__
            name = f"hook {code.co_name} of {kind}" if code.co_name in HOOKS else f"{kind}.{code.co_name}"
            return f"{name} raised {said(error)}"
    return None


@contextmanager
def naming(encoding: str) -> Iterator[None]:
    """An encoding's own failure, whatever it is, becomes an error that names the encoding, its class and its method.

    Raises:
        FaultyPluginError: something inside the encoding failed.
    """
    try:
        yield
    except PosencError:
        raise
    except Exception as error:
        if (who := blamed(error)) is None:
            raise
        raise FaultyPluginError(f"encoding {encoding!r}: {who}") from error


@torch.no_grad()
def ready(encoding: Encoding, seed: int) -> Encoding:
    """Move its parameters off their start, and make each hook, of its parts too, name itself where it fails."""
    generator = torch.Generator().manual_seed(derive(seed, "moved"))
    for parameter in encoding.parameters():
        parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return guard(encoding)


def guard(encoding: Encoding) -> Encoding:
    """Make each hook, of its parts too, name itself where it fails."""
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
        "distance_bias": (stack.heads, *first[:1]),
        "score_bias": (None, stack.heads, context.queries, context.keys),
        "pair_scores": (*first[:3], context.keys),
        "change_scores": first,
        "mix_values": (*first[:3], stack.head_width),
    }.get(hook, (*first[:3], None))
    if len(wanted) != result.dim() or any(w not in (None, size) for w, size in zip(wanted, result.shape, strict=True)):
        sizes = ", ".join("any" if size is None else str(size) for size in wanted)
        raise HookError(f"{name} gave shape {tuple(result.shape)} where it must be ({sizes})")
    if hook in ("embed", "rotate_query", "rotate_key") and result.dtype != given[0].dtype:
        raise HookError(f"{name} gave {result.dtype} where it must be {given[0].dtype}")
    if result.is_meta:  # there are no values to look at
        return result
    if not (result.isfinite() | (result == (-torch.inf if hook.endswith("bias") else 0))).all():
        raise HookError(f"{name} gave values that are not finite")
    return result
