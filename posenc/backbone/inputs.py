"""What enters the stacks in place of tokens: patches of images and videos, which stand on a grid."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from posenc.api import registry
from posenc.backbone.config import BackboneConfig


class Patches(nn.Module):
    """Patches (B,L,P) to embeddings (B,L,D), linearly (Dosovitskiy et al. 2021, arXiv:2010.11929, eq. 1).

    Its weight starts at a standard deviation of 1/sqrt(P): values with a mean square of 1 enter as tokens do.
    """

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(config.width, config.patch_values))
        self.bias = nn.Parameter(torch.empty(config.width))

    def forward(self, patches: Tensor) -> Tensor:
        return functional.linear(patches.to(self.weight.dtype), self.weight, self.bias)


def axes_read(config: BackboneConfig, encoding: str, max_length: int) -> int:
    """How many coordinates of a position an encoding is given: of tokens 1, of patches one for each side.

    An encoding that reads one coordinate is given the places of patches in a row, image row by image row (of a video
    frame by frame): a baseline that knows no plane.
    """
    if not config.patch:
        return 1
    made = registry.create(encoding, config.stack(max_length, causal=False, axes=len(config.patch)))
    return 1 if made.axes == 1 else len(config.patch)
