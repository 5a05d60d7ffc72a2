"""What a model costs before it runs: parameters and floating-point operations, counted on tensors without memory."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch.utils.flop_counter import FlopCounterMode

from posenc.attention.softmax import choose_backend
from posenc.backbone.config import BackboneConfig
from posenc.backbone.transformer import Transformer
from posenc.errors import PosencError


@lru_cache(maxsize=256)
def count(backbone: BackboneConfig, encoding: str, length: int, max_length: int) -> tuple[dict[str, int], float]:
    """Parameters (total, positional) of a model for lengths up to `max_length`, and forward FLOPs a token at `length`.

    FLOPs are those of matrix products and attention, as torch.utils.flop_counter counts them (a multiply-add is
    two); element-wise work is not counted. An encoder-decoder's tokens are those of both sides. Training takes about
    three times the forward pass.

    Raises:
        NotPossibleError: the encoding cannot serve this backbone.
    """
    with torch.device("meta"):
        model = Transformer(backbone, encoding, max_length, backend="reference").eval()
        tokens = torch.zeros(1, length, dtype=torch.long)
        try:
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                model(tokens, tokens) if backbone.form == "encoder-decoder" else model(tokens)
        except PosencError:
            raise
        except Exception as error:  # a plug-in's hook, most likely one that reads a tensor's values
            raise PosencError(
                f"encoding {encoding!r} cannot be counted on tensors without memory"
                f" ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}):"
                " its hooks may not read values out of tensors"
            ) from error
    stacks = 2 if backbone.form == "encoder-decoder" else 1
    return model.count_parameters(), counter.get_total_flops() / (stacks * length)


@lru_cache(maxsize=256)
def shapes(backbone: BackboneConfig, encoding: str, max_length: int) -> dict[str, tuple[int, ...]]:
    """The shape of every parameter, by name."""
    with torch.device("meta"):
        model = Transformer(backbone, encoding, max_length, backend="reference")
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


@lru_cache(maxsize=256)
def backend_taken(
    backbone: BackboneConfig, encoding: str, max_length: int, asked: str, device: str, training: bool = True
) -> str:
    """Which attention backend runs, of every stack: "favor" for a Performer; `training` where gradients are wanted.

    Raises:
        NotPossibleError: the encoding, or the backend asked for, cannot serve this backbone.
    """
    with torch.device("meta"):
        model = Transformer(backbone, encoding, max_length, backend=asked)
    for part in model.encodings():
        part.require_length(max_length)
    if backbone.attention == "performer":
        return "favor"
    taken = [choose_backend(asked, part, backbone.attention_dropout, device, training) for part in model.encodings()]
    return "+".join(dict.fromkeys(taken))
