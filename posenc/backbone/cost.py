"""What a model costs before it runs: parameters and floating-point operations, counted on tensors without memory."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import product

import torch
from torch.utils.flop_counter import FlopCounterMode

from posenc.api.blame import HookError, blamed, guard, naming, said
from posenc.attention.softmax.call import Needs
from posenc.attention.softmax.kernel import ROUNDS_BIASES, choose, require_kernel
from posenc.backbone.config import BackboneConfig
from posenc.backbone.transformer import Transformer
from posenc.backbone.uncompiled import uncompiled
from posenc.common.errors import FaultyPluginError, PosencError


def _model(backbone: BackboneConfig, encoding: str, max_length: int, axes: int | None = None) -> Transformer:
    """The model without memory, which counts work and never does it."""
    with uncompiled(), torch.device("meta"), naming(encoding):
        return Transformer(backbone, encoding, max_length, backend="reference", axes=axes).eval()


@lru_cache(maxsize=256)
def parameters(backbone: BackboneConfig, encoding: str, max_length: int, axes: int | None = None) -> dict[str, int]:
    """How many parameters in all ("total"), and how many of them the encoding's ("positional").

    Raises:
        NotPossibleError: the encoding cannot serve this backbone.
    """
    return _model(backbone, encoding, max_length, axes).count_parameters()


def count(
    backbone: BackboneConfig, encoding: str, length: int, max_length: int, axes: int | None = None
) -> tuple[dict[str, int], float]:
    """Parameters (total, positional) of a model for lengths up to `max_length`, and forward FLOPs a token of a whole
    row of `length`, its output layer reading every place: what `forward` counts, of one row. An encoder-decoder's
    tokens are those of both sides. axes: coordinates of a position.

    Raises:
        NotPossibleError: the encoding cannot serve this backbone.
    """
    stacks = 2 if backbone.form == "encoder-decoder" else 1
    widths = torch.full((1, stacks), length)
    read = torch.tensor([1.0 if backbone.outputs else float(length)])
    flops = forward(backbone, encoding, max_length, torch.ones(1, dtype=torch.long), widths, read, axes=axes)
    return parameters(backbone, encoding, max_length, axes), float(flops[0]) / (stacks * length)


def forward(
    backbone: BackboneConfig,
    encoding: str,
    max_length: int,
    rows: torch.Tensor,
    widths: torch.Tensor,
    read: torch.Tensor,
    packed: bool = False,
    axes: int | None = None,
) -> torch.Tensor:
    """FLOPs (P,) float64 of forward passes: of matrix products and attention, as torch.utils.flop_counter counts them
    (a multiply-add is two); element-wise work is not counted. Training takes about three times the forward pass.

    A few widths are counted, and the others taken from a polynomial through these: of attention's work a part grows
    with a row's width and a part with its square, and in an encoder-decoder with the product of both widths; a
    Performer's also with the number of its chunks.

    Args:
        rows: (P,) int64 of a pass. widths: (P,stacks) int64 of its rows, encoder first, padding included.
        read: (P,) hidden states that the output layer reads.
        packed: rows hold several examples, which a Performer keeps apart by other sums.
        axes: coordinates of a position.

    Raises:
        NotPossibleError: the encoding cannot serve this backbone. FaultyPluginError: one of its hooks fails.
    """
    samples, batch = _samples(backbone, widths), int(rows.median())
    chosen = tuple(tuple(int(width) for width in sample) for sample in samples)
    apart = packed and backbone.attention == "performer"
    counted, of_head = _counted(backbone, encoding, max_length, batch, chosen, apart, axes)
    terms = _terms(backbone, samples)
    scale = terms.abs().amax(dim=0).clamp_min(1)
    each_row = torch.tensor(counted, dtype=torch.float64) / batch
    factors = torch.linalg.lstsq(terms / scale, each_row[:, None], driver="gelsd").solution[:, 0]
    found: torch.Tensor = rows * (_terms(backbone, widths) / scale @ factors) + read.double() * of_head
    return found


def _samples(backbone: BackboneConfig, widths: torch.Tensor) -> torch.Tensor:
    """The widths (N,stacks) that are counted, of those that occur: enough for every term."""
    low, high = widths.amin(dim=0), widths.amax(dim=0)
    middle = (low + high) // 2
    found = [low, middle, high]
    if widths.shape[1] == 2:
        pairs = ((low, high), (high, low), (middle, high))
        found = [low, high, *(torch.stack((one[0], other[1])) for one, other in pairs)]
    if backbone.attention == "performer":
        # Full chunks, and where others begin: some forms go by chunks both ways.
        for edge in (backbone.chunk, 2 * backbone.chunk, 2 * backbone.chunk + 1, 4 * backbone.chunk + 1):
            found += [torch.minimum(torch.full_like(high, edge).maximum(low), high)]
            if widths.shape[1] == 2:
                found += [torch.stack((found[-1][0], high[1])), torch.stack((high[0], found[-1][1]))]
    return torch.stack(found).unique(dim=0)


def _terms(backbone: BackboneConfig, widths: torch.Tensor) -> torch.Tensor:
    """What the work of a row grows with, (P,terms), for widths (P,stacks)."""
    columns = list(widths.double().unbind(1))
    if backbone.attention == "softmax":
        columns += [column.square() for column in columns]
        if widths.shape[1] == 2:
            columns.append(columns[0] * columns[1])
    else:
        for column in list(columns):
            chunks = (column / backbone.chunk).ceil()
            columns += [chunks, chunks * (chunks > 1)]  # what lies in earlier chunks is read where there are any
    return torch.stack(columns, dim=1)


@lru_cache(maxsize=256)
def _counted(
    backbone: BackboneConfig, encoding: str, max_length: int, rows: int, widths: tuple[tuple[int, ...], ...],
    packed: bool, axes: int | None,
) -> tuple[list[int], int]:  # fmt: skip
    """FLOPs of a pass of `rows` through the stacks for each of some widths, and of the output layer for each hidden
    state that it reads.
    """
    model, found = _model(backbone, encoding, max_length, axes), []
    for sizes in widths:
        tokens = [_blank(backbone, rows, width) for width in sizes]
        try:
            with FlopCounterMode(display=False) as counter:
                _pass(model, tokens, packed)
        except PosencError:
            raise
        except Exception as error:  # a plug-in's hook, most likely one that reads a tensor's values
            reads = "meta" in str(error).lower() or "item()" in str(error)
            hint = ": its hooks may not read values out of tensors" if reads else ""
            raise FaultyPluginError(
                f"encoding {encoding!r} cannot be counted on tensors without memory"
                f" ({blamed(error) or _shape_at_fault(model, tokens) or said(error)}){hint}"
            ) from error
        found.append(counter.get_total_flops())
    with uncompiled(), FlopCounterMode(display=False) as counter, torch.no_grad():
        hidden = torch.zeros(1, 1, backbone.width, device="meta")
        model.summarise(hidden) if backbone.outputs else model.logits(hidden)
    return found, counter.get_total_flops()


def _blank(backbone: BackboneConfig, rows: int, width: int) -> torch.Tensor:
    """Rows that hold nothing, for a model without memory."""
    if backbone.patch:
        return torch.zeros(rows, width, backbone.patch_values, device="meta")
    return torch.zeros(rows, width, dtype=torch.long, device="meta")


def _pass(model: Transformer, tokens: Sequence[torch.Tensor], packed: bool = False) -> torch.Tensor:
    """The hidden states of the last stack; packed: rows say that they hold several examples."""
    segments = [part if packed else None for part in tokens]
    with uncompiled(), torch.device("meta"), torch.no_grad():
        places = torch.zeros(1, tokens[0].shape[1], model.axes, dtype=torch.long) if model.axes > 1 else None
        hidden = model.hidden(tokens[0], segments=segments[0], coordinates=places)
        if model.config.form != "encoder-decoder":
            return hidden
        return model.decode(tokens[1], hidden, segments=segments[1], memory_segments=segments[0])


def _shape_at_fault(model: Transformer, tokens: Sequence[torch.Tensor]) -> str | None:
    """Which hook gave what attention could do nothing with: it is asked again, each hook's answer looked at."""
    for part in model.encodings():
        guard(part)
    try:
        _pass(model, tokens)
    except HookError as error:
        return str(error)
    except Exception:
        return None
    return None


@lru_cache(maxsize=256)
def shapes(backbone: BackboneConfig, encoding: str, max_length: int) -> dict[str, tuple[int, ...]]:
    """The shape of every parameter, by name."""
    with uncompiled(), torch.device("meta"), naming(encoding):
        model = Transformer(backbone, encoding, max_length, backend="reference")
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


@lru_cache(maxsize=256)
def backend_taken(
    backbone: BackboneConfig, encoding: str, max_length: int, asked: str, device: str, training: bool = True,
    precision: str = "float32", length: int | None = None, axes: int | None = None,
) -> str:  # fmt: skip
    """Which attention backend runs, of every stack: "favor" for a Performer; `training` where gradients are wanted.

    Where its kernel takes biases in `precision` alone, and that is lower than float32, it says so. Of rows of
    `length`, trained at, where it is given, and of `max_length`. axes: coordinates of a position.

    Raises:
        NotPossibleError: the encoding, or the backend asked for, cannot serve this backbone, or cannot run here.
    """
    with naming(encoding):
        with uncompiled(), torch.device("meta"):
            model = Transformer(backbone, encoding, max_length, backend=asked, axes=axes)
        for part in model.encodings():
            part.require_length(max_length)
        if backbone.attention == "performer":
            return "favor"
        dropout = backbone.attention_dropout
        taken = []
        layers = [stack.at(layer) for stack in model.encodings() for layer in range(backbone.layers)]
        for tokens, part in product(dict.fromkeys((length or max_length, max_length)), layers):
            backend = choose(asked, Needs(part, dropout, device, training, tokens=tokens))
            require_kernel(backend, device, torch.bfloat16 if precision == "bfloat16" else torch.float32)
            biased = part.overrides("distance_bias") or part.overrides("score_bias")
            rounded = biased and backend in ROUNDS_BIASES and precision != "float32"
            taken.append(f"{backend} (biases in {precision})" if rounded else backend)
    return "+".join(dict.fromkeys(taken))
