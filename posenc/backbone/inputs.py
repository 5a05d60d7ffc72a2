"""What enters the stacks in place of tokens: patches of images and videos, which stand on a grid."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from posenc.api import registry
from posenc.backbone.config import BackboneConfig


class Patches(nn.Module):
    """Patches (B,L,P) to embeddings (B,L,D), linearly (Dosovitskiy et al. 2021, arXiv:2010.11929, eq. 1).

    Its weight starts at a standard deviation of 1/sqrt(P): values with a mean square of 1 enter as tokens do. With head
    class (B,L + 1,D): a learned vector stands first, and starts with a mean square of 1 as well.
    """

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(config.width, config.patch_values))
        self.bias = nn.Parameter(torch.empty(config.width))
        self.cls = nn.Parameter(torch.empty(config.width)) if config.summary else None

    def forward(self, patches: Tensor) -> Tensor:
        found = functional.linear(patches.to(self.weight.dtype), self.weight, self.bias)
        if self.cls is None:
            return found
        return torch.cat((self.cls.to(found.dtype).expand(len(found), 1, -1), found), dim=1)

    def placed(self, patches: Tensor, coordinates: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """Where all that `forward` gives stands, and which of it is the learned vector, (B,L + 1) bool.

        That vector stands at 0, which is nowhere: encodings of the plane leave what is marked as they find it.
        """
        if self.cls is None:
            return coordinates, None
        marked = torch.zeros(len(patches), patches.shape[1] + 1, dtype=torch.bool, device=patches.device)
        marked[:, 0] = True
        return None if coordinates is None else functional.pad(coordinates, (0, 0, 1, 0)), marked


def axes_read(config: BackboneConfig, encoding: str, max_length: int) -> int:
    """How many coordinates of a position an encoding is given: of tokens 1, of patches one for each side.

    An encoding that reads one coordinate is given the places of patches in a row, image row by image row (of a video
    frame by frame): a baseline that knows no plane.
    """
    if not config.patch:
        return 1
    made = registry.create(encoding, config.stack(max_length, causal=False, axes=len(config.patch)))
    return 1 if made.axes == 1 else len(config.patch)
