"""A step of training by hand: schedules point by point, AdamW's two groups, parts with unequal numbers of targets."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from posenc.backbone.config import BackboneConfig
from posenc.backbone.transformer import Transformer
from posenc.config.task import TrainingConfig
from posenc.training.optimiser import make_optimiser, rate

pytestmark = pytest.mark.usefixtures("one_thread")


def training(**changes: Any) -> TrainingConfig:
    return TrainingConfig(**{"steps": 100, "batch": 4, "learning_rate": 0.02, "validate_every": 10, **changes})


def expected(schedule: str, step: int, warmup: int, steps: int, peak: float) -> float:
    """From the definitions in words: a linear rise, then constant, to a tenth, to nothing, or as 1/sqrt."""
    if step <= warmup:
        return peak * step / warmup
    done = (step - warmup) / (steps - warmup)
    if schedule == "cosine":
        low = peak / 10
        return low + (peak - low) * (1 + math.cos(math.pi * done)) / 2
    if schedule == "linear":
        return peak * (1 - done)
    if schedule == "inverse_square_root":
        return peak * math.sqrt(max(1, warmup)) / math.sqrt(step)
    return peak


@pytest.mark.parametrize("schedule", ["constant", "cosine", "linear", "inverse_square_root"])
@pytest.mark.parametrize("warmup", [0, 1, 17, 99])
def test_every_step_of_every_schedule(schedule: str, warmup: int) -> None:
    config = training(schedule=schedule, warmup=warmup)
    for step in range(1, 101):
        assert rate(config, step) == pytest.approx(expected(schedule, step, warmup, 100, 0.02), rel=1e-12, abs=1e-18)


def test_adamw_by_hand_over_three_steps(fresh_seed: int) -> None:
    """Loshchilov and Hutter 2019, algorithm 2, in float64; decay on the backbone's matrices alone."""
    shape = BackboneConfig(layers=1, width=8, heads=2, feedforward=12, vocabulary=11)
    model = Transformer(shape, "learned+shaw", 16).initialise(fresh_seed % 2**31).double()
    config = training(weight_decay=0.1, betas=(0.8, 0.95), epsilon=1e-6)
    optimiser = make_optimiser(model, config)
    values = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    first, second = ({name: torch.zeros_like(value) for name, value in values.items()} for _ in range(2))
    generator = torch.Generator().manual_seed(fresh_seed)
    for step in (1, 2, 3):
        gradients = {n: torch.randn(v.shape, generator=generator, dtype=torch.float64) for n, v in values.items()}
        for name, parameter in model.named_parameters():
            parameter.grad = gradients[name].clone()
        optimiser.step()
        for name, gradient in gradients.items():
            matrix = name.endswith(".weight") and "norm" not in name and "embedding" not in name
            decay = 0.1 if matrix and ".encoding." not in name else 0.0
            first[name] = 0.8 * first[name] + 0.2 * gradient
            second[name] = 0.95 * second[name] + 0.05 * gradient**2
            mean, spread = first[name] / (1 - 0.8**step), second[name] / (1 - 0.95**step)
            values[name] = values[name] * (1 - 0.02 * decay) - 0.02 * mean / (spread.sqrt() + 1e-6)
    for name, parameter in model.named_parameters():
        assert (parameter - values[name]).detach().abs().max() < 1e-13, name


def test_parts_with_unequal_numbers_of_targets_give_the_gradient_of_the_whole(fresh_seed: int) -> None:
    """Each target counts alike: a part's mean is weighted by its share of the targets."""
    generator = torch.Generator().manual_seed(fresh_seed)
    layer = nn.Linear(6, 5).double()
    x = torch.randn(8, 7, 6, generator=generator, dtype=torch.float64)
    y = torch.randint(5, (8, 7), generator=generator)
    kept = torch.rand(8, 7, generator=generator) < torch.linspace(0.1, 1, 8)[:, None]
    kept[:, 0] = True

    def mean_loss(rows: slice) -> torch.Tensor:
        return nn.functional.cross_entropy(layer(x[rows])[kept[rows]], y[rows][kept[rows]])

    (whole,) = torch.autograd.grad(mean_loss(slice(None)), layer.weight)
    parts = [slice(first, first + 2) for first in range(0, 8, 2)]
    counts = [int(kept[part].sum()) for part in parts]
    assert len(set(counts)) > 1
    (together,) = torch.autograd.grad(
        sum(mean_loss(p) * (n / int(kept.sum())) for p, n in zip(parts, counts, strict=True)), layer.weight
    )
    assert (whole - together).abs().max() < 1e-14
