"""No encoding at all (NoPE): only a causal mask can tell order (Haviv et al. 2022; Kazemnejad et al. 2023)."""

from __future__ import annotations

import torch

from posenc.api.encoding import Encoding


class NoEncoding(Encoding):
    """Nothing enters anywhere. Both ways it is the order-free floor: a bag of tokens."""

    name = "none"
    look = ("none", 0)
    title = "no positional encoding; both ways, the order-free floor"
    paper = "Kazemnejad et al. 2023, arXiv:2305.19466"
    formula = "s"
    axes = None
    relative = True
    tells_order = False
    linear_form = "as_is"

    def initialise(self, generator: torch.Generator) -> None:
        """It has no parameters."""
