"""Positions drawn at random from a longer range, for another encoding to use: `randomized+rope`."""

from __future__ import annotations

import torch
from torch import Tensor

from posenc.api.encoding import Context, Encoding
from posenc.api.rows import example_lengths
from posenc.api.stack import Stack

EVALUATION_SEED = 0


class Randomized(Encoding):
    """n tokens stand at n distinct positions of 0 .. longest - 1, drawn at random and sorted.

    It sets positions and nothing else, so that it stands beside an encoding that reads them: `randomized+rope`. In
    training there is a draw for each batch, as in the authors' code: a permutation, of which an example of n tokens
    takes the first n, sorted, whatever stands beside it. (For relative encodings the authors draw distances; here those
    follow from the positions.) In evaluation there is one draw, the same for all passes: a score depends on the model
    and the data alone. Cached decoding would need the draw of the whole row: it decodes without a cache.

    Options:
        longest: of the range; 0 for 8 times the length of training (the paper: 2,048 for 40).
    """

    name = "randomized"
    look = ("absolute", 4)
    title = "sorted random positions from a longer range, for another encoding to read"
    paper = "Ruoss et al. 2023, arXiv:2305.16843, section 3"
    formula = "p_1 < ... < p_n, a random sample of 0 .. N - 1"
    cached_decoding = False
    tells_order = False
    axes = None
    linear_form = "as_is"
    fixed: Tensor

    def __init__(self, stack: Stack, *, longest: int = 0) -> None:
        super().__init__(stack)
        if longest < 0:
            raise ValueError(f"longest={longest}: must be at least the length of a row, or 0 for the default")
        self.longest = longest or 8 * stack.max_length
        fixed = self.draw(torch.Generator().manual_seed(EVALUATION_SEED), torch.device("cpu"))
        # Where tensors are made (a plan counts on such without memory), whatever the draw's own device.
        self.register_buffer("fixed", torch.empty(self.longest, dtype=fixed.dtype).copy_(fixed), persistent=False)

    @property
    def max_length(self) -> int | None:
        return self.longest

    def initialise(self, generator: torch.Generator) -> None:
        """It has no parameters."""

    def draw(self, generator: torch.Generator | None, device: torch.device) -> Tensor:
        """Numbers (longest,) in random order, of which an example takes the first."""
        return torch.randperm(self.longest, generator=generator, device=device)

    def positions(self, context: Context) -> Tensor:
        counted = Encoding.positions(self, context)[..., 0]  # 0, 1, 2 ... in each example
        numbers = self.draw(context.generator, context.device) if context.training else self.fixed
        sizes = example_lengths(context)  # (B or 1, S or 1)
        most = torch.iinfo(numbers.dtype).max if not numbers.is_floating_point() else torch.inf
        taken = torch.arange(context.keys, device=context.device) < sizes[..., None]
        placed = torch.where(taken, numbers[: context.keys], most).sort(dim=-1).values  # (B or 1, S or 1, S)
        rows = max(len(placed), len(counted))
        placed = placed.expand(rows, context.keys, -1)
        found = placed.gather(-1, counted.expand(rows, -1)[..., None])[..., 0]
        # Where padding is looked up there may be no number left.
        return torch.where(counted < sizes, found, 0)[..., None]


class RandomFloat(Randomized):
    """n tokens stand at n real positions, drawn from U(0, longest) and sorted ("random float sampling").

    As `randomized`, with fractions: an encoding of whole positions alone (a table) cannot stand beside it.

    Options:
        longest: of the range; 0 for 8 times the length of training.
    """

    name = "random_float"
    look = ("absolute", 5)
    title = "sorted random real positions from a longer range, for another encoding to read"
    paper = "arXiv:2602.14050"
    formula = "p_1 < ... < p_n, a random sample of U(0, N)"

    def draw(self, generator: torch.Generator | None, device: torch.device) -> Tensor:
        return self.longest * torch.rand(self.longest, generator=generator, device=device, dtype=torch.float64)
