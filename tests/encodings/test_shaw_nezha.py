"""Shaw with tables of each head's own; NEZHA by its released code's index; T5's buckets."""

from __future__ import annotations

import pytest
import torch
from goldens import context_of, golden, made, parameters

from posenc.encodings.nezha import Nezha
from posenc.encodings.t5 import bucket

pytestmark = pytest.mark.usefixtures("one_thread")


def test_nezha_released() -> None:
    theirs = golden("nezha_released")["relative_embeddings"].double()
    encoding = made("nezha(clip=4, released=True)", 2)
    assert isinstance(encoding, Nezha)
    table = encoding.key_vectors(context_of(encoding, 11))
    index = torch.arange(11)
    rows = (index - index[:, None]).clamp(-4, 4) + 4
    torch.testing.assert_close(table[rows], theirs, atol=1e-6, rtol=0)
    assert (made("nezha(clip=4)", 2).key_vectors(context_of(encoding, 11)) - table).abs().max() > 0.5  # type: ignore[operator]


@pytest.mark.parametrize("causal", [True, False])
def test_shaw_with_tables_of_each_head_is_the_loop(causal: bool) -> None:
    encoding = made("shaw(clip=3, per_head=True)", 2, stack={"causal": causal})
    q, k = torch.randn(2, 1, 2, 9, 8, dtype=torch.float64).unbind()
    weights = torch.randn(1, 2, 9, 9, dtype=torch.float64).softmax(-1)
    context = context_of(encoding, 9)
    bias, mixed = encoding.score_bias(q, k, context), encoding.mix_values(weights, context)
    keys, values = encoding.get_parameter("key_tables")[1], encoding.get_parameter("value_tables")[1]
    for h, i in ((0, 8), (1, 0), (1, 4)):
        rows = [min(max(j - i, -3), 3) + 3 for j in range(9)]
        torch.testing.assert_close(bias[0, h, i], torch.stack([q[0, h, i] @ keys[h, row] for row in rows]) / 8**0.5)
        wanted = sum(weights[0, h, i, j] * values[h, row] for j, row in enumerate(rows))
        torch.testing.assert_close(mixed[0, h, i], wanted)
    assert not encoding.overrides("clipped_vectors") and made("shaw", 2).overrides("clipped_vectors")
    assert parameters("shaw(clip=3, per_head=True)") == 2 * parameters("shaw(clip=3)")


@pytest.mark.parametrize(("way", "both"), [("both", True), ("causal", False)])
@pytest.mark.parametrize(("buckets", "longest"), [(32, 128), (16, 64)])
def test_t5_buckets(way: str, both: bool, buckets: int, longest: int) -> None:
    theirs = golden("t5_buckets")
    found = bucket(theirs["distances_key_minus_query"].long(), buckets, longest, both)
    assert torch.equal(found, theirs[f"buckets_{way}_{buckets}_{longest}"].long())
