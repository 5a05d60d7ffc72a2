"""What a token may see: causality to the last bit, both ways in an encoder, and nothing of padding."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from models import (
    EVERY,
    VOCABULARY,
    answer,
    every,
    exact,
    kept,
    serves,
    tokens_of,
)  # fmt: skip
from torch.nn import functional

pytestmark = pytest.mark.usefixtures("one_thread")


# Causality


@EVERY
@settings(max_examples=6)
@given(t=st.integers(1, 22), seed=st.integers(0, 1000), whole=st.booleans())
def test_changing_token_t_changes_no_output_before_t_in_the_last_bit(
    attention: str, name: str, t: int, seed: int, whole: bool
) -> None:
    model = kept(lambda: exact(name, attention=attention), "causal", attention, name)
    tokens = tokens_of(2, 23, seed=seed)
    other = tokens.clone()
    changed = slice(t, None) if whole else slice(t, t + 1)
    other[:, changed] = (other[:, changed] + 1 + seed % (VOCABULARY - 1)) % VOCABULARY
    before, after = model(tokens), model(other)
    assert torch.equal(before[:, :t], after[:, :t])
    assert not torch.equal(before[:, t], after[:, t])


@EVERY
def test_causality_holds_in_a_long_row_and_beside_an_encoder(attention: str, name: str) -> None:
    """Long enough for several blocks of torch's kernel and many chunks; both norms; and with padding."""
    long = exact(name, attention=attention, max_length=600, norm="post", layers=1, chunk=64)
    tokens = tokens_of(1, 600)
    other = tokens.clone()
    other[:, 530:] = (other[:, 530:] + 3) % VOCABULARY
    assert torch.equal(long(tokens)[:, :530], long(other)[:, :530])
    if not serves(name, "encoder-decoder"):
        return
    both = exact(name, attention=attention, form="encoder-decoder")
    mask = torch.tensor([[0, 0] + [1] * 11, [1] * 13]).bool()
    targets = tokens_of(2, 13)
    changed = targets.clone()
    changed[:, 8:] = (changed[:, 8:] + 3) % VOCABULARY
    before, after = (answer(both, x, targets_mask=mask) for x in (targets, changed))
    assert torch.equal(before[:, :8], after[:, :8])
    assert not torch.equal(before[:, 8:], after[:, 8:])


@every("encoder")
def test_an_encoder_sees_both_ways(attention: str, name: str) -> None:
    model = exact(name, attention=attention, form="encoder")
    tokens = tokens_of(1, 9)
    other = tokens.clone()
    other[:, 8] = (other[:, 8] + 1) % VOCABULARY
    assert not torch.equal(model(tokens)[:, 0], model(other)[:, 0])


@every("encoder")
def test_an_encoder_tells_order_exactly_where_its_encoding_says_so(attention: str, name: str) -> None:
    model = exact(name, attention=attention, form="encoder")
    tokens = torch.arange(9)[None]
    order = torch.tensor([3, 1, 0, 2, 8, 5, 6, 7, 4])
    gap = (model(tokens[:, order]) - model(tokens)[:, order]).abs().max().item()
    assert gap > 1e-3 if model.encodings()[0].tells_order else gap < 1e-10


# Padding


@every("decoder", "encoder")
def test_padding_left_or_right_changes_no_real_output(attention: str, name: str, form: str) -> None:
    model = exact(name, attention=attention, form=form, larger=1.5)
    lengths = (11, 6, 1)
    rows = [tokens_of(1, length, seed=length) for length in lengths]
    alone = [model(row)[0] for row in rows]
    for left in (False, True):
        places = [slice(13 - n, 13) if left else slice(0, n) for n in lengths]
        mask = torch.zeros(3, 13).bool()
        outputs = []
        for filler in (0, 7):
            padded = torch.full((3, 13), filler)
            for b, place in enumerate(places):
                padded[b, place], mask[b, place] = rows[b][0], True
            outputs.append(model(padded, mask=mask))
        assert outputs[0].isfinite().all()
        assert torch.equal(outputs[0][mask], outputs[1][mask]), "what stands at padding is never looked at"
        for b, place in enumerate(places):
            torch.testing.assert_close(outputs[0][b, place], alone[b], atol=1e-12, rtol=1e-12)


@every("encoder-decoder")
def test_padding_of_source_and_targets_changes_no_real_output_of_an_encoder_decoder(attention: str, name: str) -> None:
    model = exact(name, attention=attention, form="encoder-decoder", larger=1.5)
    source, targets = tokens_of(1, 6), tokens_of(1, 5, seed=2)
    alone = model(source, targets)
    assert alone.shape == (1, 5, VOCABULARY)
    for sides in ((3, 0), (0, 3), (1, 2)):
        mask = functional.pad(torch.ones(1, 6).bool(), sides, value=False)
        targets_mask = functional.pad(torch.ones(1, 5).bool(), sides, value=False)
        outputs = [
            model(
                functional.pad(source, sides, value=filler),
                functional.pad(targets, sides, value=filler),
                mask=mask,
                targets_mask=targets_mask,
            )[:, sides[0] : sides[0] + 5]
            for filler in (0, 7)
        ]
        assert torch.equal(*outputs)
        torch.testing.assert_close(outputs[0], alone, atol=1e-12, rtol=1e-12)


@EVERY
def test_gradients_with_padding_are_those_without(attention: str, name: str) -> None:
    tokens, gradients = tokens_of(1, 7), []
    for sides in ((0, 0), (4, 0), (0, 4)):
        model = exact(name, attention=attention, larger=1.0)
        mask = functional.pad(torch.ones(1, 7).bool(), sides, value=False)
        model(functional.pad(tokens, sides, value=3), mask=mask)[mask].square().sum().backward()
        gradients.append([p.grad for p in model.parameters()])
    for other in gradients[1:]:
        for got, expected in zip(other, gradients[0], strict=True):
            torch.testing.assert_close(got, expected, atol=1e-10, rtol=1e-10)
