"""xformers' memory-efficient attention, CUDA only: with a bias, with the causal triangle, or of packed rows.

xformers is loaded only where it is asked for: it takes seconds, and has no CPU operator. Its extension was built for
one CUDA (cpp_lib.json) and asks for that one's runtime by name: a torch built for another brings its own alone. So the
runtime's own wheel is looked for (nvidia-cuda-runtime-cu12) and loaded by its path first.
"""

from __future__ import annotations

import ctypes
import json
import logging
import re
from functools import cache
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from posenc.api.blame import said
from posenc.api.context import Context
from posenc.attention.softmax.call import Call, Needs
from posenc.common.errors import NotPossibleError

STEP = 8
"""Its kernels read rows of a bias, and heads, in steps of 16 bytes: 8 numbers in bf16."""
REFUSED = re.compile(r"is not supported because:\s+(.+)")


def _refuse(what: str) -> NotPossibleError:
    return NotPossibleError(f"not possible: backend 'xformers' {what}")


@cache
def load() -> Any:
    """xformers.ops, with its operators loaded.

    Raises:
        NotPossibleError: it is not there, or cannot be loaded; with the library that was missing.
    """
    runtime = _bring_runtime()
    logging.getLogger("xformers").setLevel(logging.ERROR)  # eight lines a process: what matters of them is said here
    try:
        from xformers import _cpp_lib, ops
    except Exception as error:  # one made for another torch may raise anything
        raise _refuse(f"cannot be imported: {said(error)}") from None
    failed = getattr(_cpp_lib, "_cpp_library_load_exception", None)
    if failed is None:
        return ops
    cause = failed
    while cause.__cause__ is not None:  # the loader's own words, which name the library
        cause = cause.__cause__
    missing = str(cause).strip().splitlines()[0]
    if runtime and runtime in missing:
        major = runtime.rsplit(".", 1)[1]
        missing += f" (pip install nvidia-cuda-runtime-cu{major})"
    raise _refuse(f"cannot load its operators: {missing}")


def _bring_runtime() -> str:
    """Load the CUDA runtime that its extension asks for, where it is not loaded yet; its name, "" where none is known.

    Where none is found nothing happens: loading the extension then says what was missing.
    """
    try:
        spec = find_spec("xformers")
        if spec is None or spec.origin is None:
            return ""
        built = json.loads((Path(spec.origin).parent / "cpp_lib.json").read_text(encoding="utf-8"))
        name = f"libcudart.so.{int(built['version']['cuda']) // 100}"
    except (ImportError, ValueError, OSError, KeyError, TypeError):  # another build, or a module that cannot be found
        return ""
    for path in (name, *_wheels(name)):
        try:
            ctypes.CDLL(path, ctypes.RTLD_GLOBAL)
        except OSError:
            continue
        break
    return name


def _wheels(name: str) -> list[str]:
    """Where NVIDIA's wheels have put a library."""
    try:
        spec = find_spec("nvidia")
    except (ImportError, ValueError):
        return []
    folders = [] if spec is None else list(spec.submodule_search_locations or ())
    return [str(path) for folder in folders for path in sorted(Path(folder).glob(f"*/lib/{name}"))]


def why_not(needs: Needs) -> str | None:
    """Why it cannot; None where it can."""
    if needs.explicit:
        return f"never shows attention weights, and {needs.explicit}"
    return None if needs.device == "cuda" else f"has no operator for device {needs.device!r}, only for cuda"


def attend(call: Call) -> Tensor:
    """Attention's output (B,H,L,K). Its kernels want a table in the queries' precision: in bf16 biases are rounded.

    Raises:
        NotPossibleError: it cannot be loaded, or has no operator for these heads.
    """
    # An encoding may rotate in float32, and nothing here is cast by autocast.
    queries, keys, values = call.queries.to(call.values.dtype), call.keys.to(call.values.dtype), call.values
    if call.context is not None and packed_alone(call):
        return attend_packed(queries, keys, values, call.causal, call.scale, call.context)
    table = call.table()
    bias = load().LowerTriangularMask() if call.causal and table is None else None
    if table is not None:
        bias = aligned(table, queries)
    heads_last = [part.transpose(1, 2) for part in (queries, keys, values)]
    return _attention(heads_last, bias, call.scale).transpose(1, 2)


def aligned(table: Tensor, queries: Tensor) -> Tensor:
    """A table as its kernels read it, (B,H,L,S) in the queries' precision: each row begins at a multiple of `STEP`.

    Rows are laid out in a wider buffer and cut back. A table that is the same for all rows of the batch, or all heads,
    is there once.
    """
    if table.dtype == torch.bool:
        table = torch.zeros_like(table, dtype=queries.dtype).masked_fill(~table, -torch.inf)
    length = table.shape[-1]
    padded = functional.pad(table.to(queries.dtype), (0, -length % STEP)).contiguous()
    return padded[..., :length].expand(*queries.shape[:2], -1, -1)


def _attention(heads: list[Tensor], bias: Any, scale: float) -> Tensor:
    """Of queries, keys and values (B,L or S,H,K)."""
    try:
        out: Tensor = load().memory_efficient_attention(*heads, attn_bias=bias, scale=scale)
    except NotImplementedError as error:  # its way to say that no operator takes them
        reasons = [part.strip() for part in REFUSED.findall(str(error))]
        raise _refuse(f"has no operator for this: {'; '.join(dict.fromkeys(reasons)) or said(error)}") from None
    return out


def packed_alone(call: Call) -> bool:
    """Whether packed rows are all that hides a key, but causality, and nothing is added to the scores."""
    context = call.context
    plain = context is not None and context.mask is None and context.window is None and context.offset == 0
    added = call.overrides("distance_bias") or call.overrides("score_bias")
    return plain and context is not None and context.segments is not None and not added


def packed_bias(segments: Tensor, causal: bool) -> Any:
    """The block-diagonal mask of packed rows (B,L), all rows one after another: a block for each example.

    Raises:
        NotPossibleError: an example whose tokens do not stand together; or xformers cannot be imported.
    """
    try:
        from xformers.ops.fmha.attn_bias import BlockDiagonalMask
    except Exception as error:  # one made for another torch may raise anything
        raise _refuse(f"cannot be imported: {said(error)}") from None

    fresh = torch.ones_like(segments, dtype=torch.bool)
    fresh[:, 1:] = segments[:, 1:] != segments[:, :-1]
    ordered = segments.sort(dim=1).values
    if int(fresh.sum()) != segments.shape[0] + int((ordered[:, 1:] != ordered[:, :-1]).sum()):
        raise NotPossibleError("not possible: backend 'xformers' with a packed example whose tokens stand apart")
    starts = [*fresh.flatten().nonzero().flatten().tolist(), segments.numel()]
    bias = BlockDiagonalMask.from_seqlens([end - start for start, end in pairwise(starts)])
    return bias.make_causal() if causal else bias


def attend_packed(
    queries: Tensor, keys: Tensor, values: Tensor, causal: bool, scale: float, context: Context
) -> Tensor:
    """Attention's output (B,H,L,K) of packed rows: no pair of two examples is computed."""
    segments = context.segments
    assert segments is not None
    bias = context.once(attend_packed, "mask", lambda: packed_bias(segments, causal))
    rows, heads, length, _ = queries.shape
    one = [part.transpose(1, 2).reshape(1, rows * length, heads, -1) for part in (queries, keys, values)]
    out = _attention(one, bias, scale)
    return out.reshape(rows, length, heads, -1).transpose(1, 2)
