"""RoPE with other frequencies: for rows longer than those trained on, or with some channels left free of position."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from posenc.api.stack import Stack
from posenc.encodings.rope import Rope


class _Scaled(Rope):
    """RoPE for rows `factor` times as long as those that it was meant for."""

    def __init__(self, stack: Stack, *, base: float = 10000.0, factor: float = 4.0) -> None:
        super().__init__(stack, base=base)
        if factor < 1:
            raise ValueError(f"factor={factor}: must be at least 1")
        self.factor = factor


class _Ramped(_Scaled):
    """One whose frequencies are scaled by a ramp, from those that turn `fast` times in a length to those of `slow`."""

    def __init__(
        self, stack: Stack, *, base: float = 10000.0, factor: float = 4.0, original: int = 0, fast: float = 32.0,
        slow: float = 1.0,
    ) -> None:  # fmt: skip
        super().__init__(stack, base=base, factor=factor)
        if original < 0:
            raise ValueError(f"original={original}: must be a length, or 0 for that of training")
        if not 0 < slow < fast:
            raise ValueError(f"fast={fast}, slow={slow}: fast must be the larger, and both more than 0")
        self.original, self.fast, self.slow = original or stack.max_length, fast, slow


class RopeLinear(_Scaled):
    """Position interpolation: RoPE at positions divided by `factor`, so theta_i / factor.

    Options:
        base: as RoPE's. factor: how many times longer rows get than those that RoPE was meant for.
    """

    name = "rope_linear"
    look = ("rotary", 7)
    title = "RoPE at positions divided by a factor (position interpolation)"
    paper = "Chen et al. 2023, arXiv:2306.15595, equation 4"
    formula = "RoPE with theta_c / f"

    def frequencies(self, rotated: int, device: torch.device) -> Tensor:
        return super().frequencies(rotated, device) / self.factor


class RopeNtk(_Scaled):
    """NTK-aware scaling, fixed: RoPE with base' = base factor^(K/(K-2)).

    The highest frequency stays, the lowest is divided by `factor`. What libraries call "dynamic" changes the factor
    with the row's length, and is another thing.

    Options:
        base: as RoPE's. factor: as position interpolation's.
    """

    name = "rope_ntk"
    look = ("rotary", 6)
    title = "RoPE with a larger base, so that slow channels are slowed most (NTK-aware)"
    paper = "bloc97 2023; Peng et al. 2023, arXiv:2309.00071, section 3.1"
    formula = "RoPE with base f^(K/(K-2))"

    def frequencies(self, rotated: int, device: torch.device) -> Tensor:
        exponents = torch.arange(0, rotated, 2, dtype=torch.float64, device=device) / rotated
        larger = self.base * self.factor ** (rotated / max(rotated - 2, 1))  # of 2 channels the only frequency is 1
        return larger**-exponents


class Yarn(_Ramped):
    """YaRN: fast channels as RoPE has them, slow ones divided by `factor`, between them a ramp; scores are sharper.

    Channel pair c turns L0 theta_c / (2 pi) times in the original length. From `fast` turns on it stays, up to `slow`
    it is interpolated. The ramp runs over c between the places of both, rounded outwards as in the authors' code.
    Queries times keys get (0.1 ln factor + 1)^2 (equation 22, which writes it as a temperature).

    Options:
        base: as RoPE's. factor: how many times longer rows get. original: the length before, 0 for that of training.
        fast, slow: beta and alpha of the paper.
    """

    name = "yarn"
    look = ("rotary", 4)
    title = "RoPE with slow channels interpolated, fast ones kept, and sharper scores"
    paper = "Peng et al. 2023, arXiv:2309.00071, sections 3.2 to 3.4, equation 22"
    formula = "RoPE with theta_c / f for slow c, a ramp, and s (0.1 ln f + 1)^2"

    @property
    def score_scale(self) -> float:
        return self.stack.scale() * (0.1 * math.log(self.factor) + 1) ** 2

    def frequencies(self, rotated: int, device: torch.device) -> Tensor:
        def place(turns: float) -> float:
            """The pair, counted in fractions, that turns so often in the original length."""
            return rotated * math.log(self.original / (2 * math.pi * turns)) / (2 * math.log(self.base))

        first, last = max(math.floor(place(self.fast)), 0), min(math.ceil(place(self.slow)), rotated - 1)
        pairs = torch.arange(rotated // 2, dtype=torch.float64, device=device)
        ramp = ((pairs - first) / max(last - first, 0.001)).clamp(0, 1)
        plain = super().frequencies(rotated, device)
        return plain * (1 - ramp) + plain / self.factor * ramp


class RopeLlama3(_Ramped):
    """Llama 3.1's frequencies: by wavelength, kept up to L0 / `fast`, divided by `factor` from L0 / `slow` on.

    Between both a mean of the two, weighted by (L0 / wavelength - slow) / (fast - slow).

    Options:
        base: as RoPE's. factor: as position interpolation's. original: L0, 0 for the length of training.
        fast, slow: how often the original length holds the wavelengths at the ends of the ramp.
    """

    name = "rope_llama3"
    look = ("rotary", 9)
    title = "RoPE with long wavelengths interpolated and short ones kept, as Llama 3.1 has it"
    paper = "Grattafiori et al. 2024, arXiv:2407.21783; the released code"
    formula = "RoPE with theta_c / f for long wavelengths"

    def __init__(
        self, stack: Stack, *, base: float = 10000.0, factor: float = 8.0, original: int = 0, fast: float = 4.0,
        slow: float = 1.0,
    ) -> None:  # fmt: skip
        super().__init__(stack, base=base, factor=factor, original=original, fast=fast, slow=slow)

    def frequencies(self, rotated: int, device: torch.device) -> Tensor:
        plain = super().frequencies(rotated, device)
        turns = self.original * plain / (2 * math.pi)  # in the original length
        kept = ((turns - self.slow) / (self.fast - self.slow)).clamp(0, 1)
        return plain * kept + plain / self.factor * (1 - kept)


class PRope(Rope):
    """p-RoPE: RoPE's fastest frequencies, a part p of them; the slowest are 0, so that their channels carry content.

    The spacing is that of the whole head. (`rope(fraction=p)` is another thing: it spreads all frequencies over a part
    of the channels.)

    Options:
        base: as RoPE's. p: the part that is kept, rounded down to whole pairs; 0.75 did best in the paper.
    """

    name = "p_rope"
    look = ("rotary", 5)
    title = "RoPE without its slowest frequencies, whose channels carry content alone"
    paper = "Barbero et al. 2024, arXiv:2410.06205, section 6"
    formula = "RoPE with theta_c = 0 for the slowest"

    def __init__(self, stack: Stack, *, base: float = 10000.0, p: float = 0.75) -> None:
        super().__init__(stack, base=base)
        if not 0 < p <= 1:
            raise ValueError(f"p={p}: must be more than 0 and at most 1")
        self.p = p

    def frequencies(self, rotated: int, device: torch.device) -> Tensor:
        plain = super().frequencies(rotated, device)
        pairs = torch.arange(rotated // 2, device=device)
        return plain.where(pairs < int(self.p * rotated / 2), 0.0)


class Hope(Rope):
    """HoPE: frequencies whose wavelength fits into the length, theta >= 2 pi / L; the rest are 0, free of position.

    Of the two papers of that name the one "without long-term decay".

    Options:
        base: as RoPE's. length: L; 0 for the length of training.
    """

    name = "hope"
    look = ("rotary", 11)
    title = "RoPE's frequencies that turn at least once within the length; the other channels carry content alone"
    paper = "Chen et al. 2024, arXiv:2410.21216, section 4"
    formula = "RoPE with theta_c = 0 below 2 pi / L"

    def __init__(self, stack: Stack, *, base: float = 10000.0, length: int = 0) -> None:
        super().__init__(stack, base=base)
        if length < 0:
            raise ValueError(f"length={length}: must be a length, or 0 for that of training")
        self.length = length or stack.max_length

    def frequencies(self, rotated: int, device: torch.device) -> Tensor:
        plain = super().frequencies(rotated, device)
        return plain.where(plain >= 2 * math.pi / self.length, 0.0)
