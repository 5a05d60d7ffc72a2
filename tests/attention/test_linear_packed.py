"""Linear attention over packed rows and with what decoding keeps: one encoding of each form that enters it."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from models import assert_packed_as_alone, exact, kept, segments_of, serves, tokens_of
from torch import Tensor

from posenc.api import registry
from posenc.attention.interface import DecodingCache
from posenc.attention.linear.kernel import FORMS
from posenc.attention.linear.scales import runs_of
from posenc.backbone.transformer import Transformer

pytestmark = pytest.mark.usefixtures("one_thread")

NAMES = ("learned", "rope", "selective_rope", "rope_outside", "xpos_outside", "permuteformer", "alibi", "fox", "pope",
         "goat", "cosformer", "t5(buckets=8,max_distance=10)", "shaw(clip=2)")  # fmt: skip
CASES = [(name, form) for name in NAMES for form in ("decoder", "encoder") if serves(name, form)]
COUNTS = ([3, 7, 1, 5, 12], [17, 2, 9])


def performer(name: str, form: str = "decoder", **changes: int) -> Transformer:
    """One whose chunks end within examples, and whose features are drawn."""
    return exact(name, form=form, attention="performer", **changes)


def test_each_form_is_tried() -> None:
    forms = {registry.create(name, exact().encodings()[0].stack).linear_form for name in NAMES}
    assert forms == set(FORMS)


def test_runs_count_the_examples_of_each_row() -> None:
    segments = torch.tensor([[0, 0, 1, 1, 2], [5, 5, 0, 0, 0], [3, 1, 3, 1, 3]])
    assert runs_of(segments).tolist() == [[0, 0, 1, 1, 2], [0, 0, 1, 1, 1], [0, 1, 2, 3, 4]]


@pytest.mark.parametrize(("name", "form"), CASES)
@pytest.mark.parametrize("padding", ["none", "left", "right"])
def test_packed_rows_give_what_their_examples_give_one_by_one(name: str, form: str, padding: str) -> None:
    model = kept(lambda: performer(name, form), "packed", name, form)
    assert_packed_as_alone(model, tokens_of(2, 28), COUNTS, padding, room=3)


@pytest.mark.parametrize(("name", "form"), CASES)
def test_no_example_of_a_packed_row_moves_another_by_a_bit(name: str, form: str) -> None:
    model = kept(lambda: performer(name, form), "packed", name, form)
    tokens, segments = tokens_of(2, 28), segments_of(COUNTS)
    with torch.no_grad():
        model.embedding.weight[7] = 50 * model.embedding.weight[7]  # a key with by far the largest features
        before = model.hidden(tokens, segments=segments)
        other = tokens.clone()
        other[:, 18:] = 7
        after = model.hidden(other, segments=segments)
        model.embedding.weight[7] /= 50
    assert torch.equal(before[:, :16], after[:, :16]) and not torch.equal(before[:, 16:], after[:, 16:])


@pytest.mark.parametrize(("name", "form"), CASES)
def test_gradients_of_packed_rows_are_those_of_their_examples(name: str, form: str) -> None:
    model = kept(lambda: performer(name, form), "packed", name, form)
    tokens, segments = tokens_of(2, 28)[:1], segments_of(COUNTS)[:1]

    def gradients(loss: Tensor) -> dict[str, Tensor]:
        model.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    weights = torch.linspace(-1, 1, 16, dtype=torch.float64)
    packed = gradients((model.hidden(tokens, segments=segments) * weights).square().sum())
    edges = [0, 3, 10, 11, 16, 28]
    parts = [model.hidden(tokens[:, first:end]) for first, end in pairwise(edges)]
    for key, gradient in gradients((torch.cat(parts, 1) * weights).square().sum()).items():
        torch.testing.assert_close(packed[key], gradient, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("masked", [False, True])
def test_packed_pairs_of_an_encoder_decoder_are_as_they_are_alone(masked: bool) -> None:
    model = performer("rope", "encoder-decoder")
    sources, targets = ([4, 9, 2, 1], [6, 1, 9, 0]), ([7, 3, 5, 0], [2, 8, 3, 2])
    read, written = tokens_of(2, 16), tokens_of(2, 15, seed=2)
    of_source, of_target, mask = segments_of(sources), segments_of(targets), None
    if masked:  # the unused end of the first row
        mask = torch.ones(2, 16).bool()
        mask[0, 15:] = False
    memory = model.hidden(read, segments=of_source, mask=mask)
    packed = model.decode(
        written, memory, segments=of_target, memory_segments=of_source, memory_mask=mask
    )  # fmt: skip
    for row in range(2):
        for n in range(3):
            source, target = (x[row : row + 1, part[row] == n] for x, part in ((read, of_source), (written, of_target)))
            alone = model.decode(target, model.hidden(source))[0]
            torch.testing.assert_close(packed[row, of_target[row] == n], alone, atol=1e-11, rtol=0)


CACHED = [name for name in NAMES if serves(name, "decoder") and performer(name).encodings()[0].cached_decoding]


@pytest.mark.parametrize("name", CACHED)
@settings(max_examples=5)
@given(cuts=st.lists(st.integers(1, 27), max_size=9, unique=True), left=st.integers(0, 5), packed=st.booleans())
def test_cached_decoding_is_the_uncached_however_the_row_is_cut(
    name: str, cuts: list[int], left: int, packed: bool
) -> None:
    model = kept(lambda: performer(name), "decoded", name)
    tokens, mask = tokens_of(2, 28), torch.ones(2, 28).bool()
    mask[1, :left] = False
    segments = segments_of(COUNTS) if packed else None
    expected = model.hidden(tokens, mask=mask if left else None, segments=segments)
    cache, parts = DecodingCache(2), []
    for start, end in pairwise([0, *sorted(cuts), 28]):
        seen, own = mask[:, :end] if left else None, None if segments is None else segments[:, :end]
        parts.append(model.hidden(tokens[:, start:end], mask=seen, segments=own, cache=cache))
    # Where features are turned in the numerator alone, its terms cancel, and a row is as large as its rounding.
    limit = 1e-9 if name.endswith("outside") else 1e-11
    torch.testing.assert_close(torch.cat(parts, 1)[mask], expected[mask], atol=limit, rtol=0)


@pytest.mark.parametrize("name", CACHED)
def test_what_decoding_keeps_does_not_grow_with_the_row(name: str) -> None:
    model, tokens = performer(name, layers=1), tokens_of(1, 60)
    cache, sizes = DecodingCache(1), []
    for t in range(60):
        model.hidden(tokens[:, t : t + 1], cache=cache)
        sizes.append(sum(part.numel() for part in cache.layers[0].parts or ()))
    assert sizes[-1] == sizes[30]


@pytest.mark.parametrize("name", CACHED)
def test_rows_of_what_decoding_keeps_can_be_taken(name: str) -> None:
    """As a beam search takes them."""
    model, tokens, rows = performer(name), tokens_of(3, 20), torch.tensor([2, 0, 0])
    cache = DecodingCache(2)
    model.hidden(tokens[:, :14], cache=cache)
    cache.select(rows)
    after = tokens_of(3, 6, seed=5)
    expected = model.hidden(torch.cat((tokens[rows, :14], after), dim=1))[:, 14:]
    torch.testing.assert_close(model.hidden(after, cache=cache), expected, atol=1e-11, rtol=0)
