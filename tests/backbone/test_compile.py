"""torch.compile takes encodings whole, without a graph break, forward and backward: of each kind; `check` tries all."""

from __future__ import annotations

import pytest
import torch
from models import serves

from posenc.api import registry
from posenc.api.stack import Stack
from posenc.backbone.config import BackboneConfig
from posenc.backbone.transformer import Transformer

pytestmark = pytest.mark.usefixtures("one_thread")

STACK = Stack(layers=2, heads=2, width=16, head_width=8, max_length=20, causal=True)
CASES = [
    (name, attention)
    for attention in ("softmax", "performer")
    for name in ["t5+shaw+rope", "learned+rope_outside", "fox", "cope", "layers(rope, t5, every=2, window=8)"]
    if registry.create(name, STACK).why_not(attention) is None
]


def check(
    name: str, attention: str, form: str, seed: int, backend: str = "auto", layers: int = 2, bare: bool = True
) -> None:
    """A step on padded rows, and where `bare` on the same without padding."""
    config = BackboneConfig(
        form=form, layers=layers, width=16, heads=2, feedforward=16, attention=attention, features=8, chunk=16  # type: ignore[arg-type]
    )  # fmt: skip
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(256, (2, 20), generator=generator)
    mask = torch.arange(20) < torch.tensor([[20], [13]])
    model = Transformer(config, name, 20, backend).initialise(seed)

    def loss(model: Transformer) -> torch.Tensor:
        hidden = model.hidden(tokens, mask=mask)
        padded = (hidden.square() * mask[..., None]).mean() + model.logits(hidden).logsumexp(-1).mean()
        return padded + model.hidden(tokens).square().mean() if bare else padded

    torch._dynamo.reset()
    expected = loss(model)
    gradients = torch.autograd.grad(expected, list(model.parameters()), allow_unused=True)
    got = torch.compile(loss, fullgraph=True, backend="eager")(model)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
    for ours, theirs in zip(
        torch.autograd.grad(got, list(model.parameters()), allow_unused=True), gradients, strict=True
    ):
        assert (ours is None) == (theirs is None)
        if ours is not None and theirs is not None:
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("name", "attention"), CASES)
def test_a_training_step_of_a_decoder_has_no_graph_break(name: str, attention: str, fresh_seed: int) -> None:
    # Two layers, of which the second reads what the first made, or one with and without padding.
    two = name == "t5+shaw+rope" or name.startswith("layers")
    check(name, attention, "decoder", fresh_seed, layers=2 if two else 1, bare=not two)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "attention"), [case for case in CASES if serves(case[0], "encoder")])
def test_a_training_step_of_an_encoder_has_no_graph_break(name: str, attention: str, fresh_seed: int) -> None:
    check(name, attention, "encoder", fresh_seed)


def test_the_reference_has_no_graph_break_with_shaws_form(fresh_seed: int) -> None:
    """The plain form, which `auto` takes on a GPU."""
    check("shaw", "softmax", "decoder", fresh_seed, backend="reference")
