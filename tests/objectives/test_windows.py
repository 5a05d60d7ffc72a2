"""Windows of every length score the same tokens; those that slide are what a loop over the tokens finds."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from posenc.backbone.config import BackboneConfig
from posenc.backbone.transformer import Transformer
from posenc.common.errors import ConfigError, DataError
from posenc.config.task import EvaluationConfig, task_at
from posenc.data.text import ByteText
from posenc.objectives.causal_lm import CausalLM
from posenc.objectives.windows import Windows, bins, separate, sliding
from posenc.plan.plan import make
from posenc.plan.selection import Selection, find_suite
from posenc.report.statistics.resampling import resampled

LENGTH, STRIDE = 8, 3
FACTORS = [0.5, 1, 1.5]


def objective(stride: int = STRIDE, batch_tokens: int = 50, size: int = 600, **more: object) -> CausalLM:
    content = np.random.default_rng(0).integers(97, 107, size=size, dtype=np.uint8)
    scored = {"length_factors": FACTORS, "tokens": 24, "stride": stride, "batch_tokens": batch_tokens, **more}
    return CausalLM(ByteText("made up", content, "0" * 64), (0.8, 0.1, 0.1), LENGTH, EvaluationConfig(**scored))  # type: ignore[arg-type]


def model_of(encoding: str) -> Transformer:
    config = BackboneConfig(vocabulary=256, layers=2, width=16, heads=2, feedforward=16)
    return Transformer(config, encoding, LENGTH).double().initialise(1).eval()


def bits_of(model: Transformer, content: np.ndarray, place: int, first: int) -> float:
    """Of one token, from what stands before it from `first` on."""
    with torch.no_grad():
        read = torch.from_numpy(content[first:place].astype(np.int64))[None]
        return -float(model(read)[0, -1].log_softmax(-1)[int(content[place])]) / math.log(2)


@given(st.integers(1, 12), st.integers(1, 6), st.data())
def test_both_kinds_of_windows_score_each_token_once(length: int, times: int, data: st.DataObject) -> None:
    targets, stride = length * times, data.draw(st.integers(1, length))
    content = np.arange(targets + 1)

    def scored(parts: list[Windows]) -> list[int]:
        return [int(t) for part in parts for batch in part.batches(content, 20) for t in batch[:, -part.scored :].flat]

    assert scored(separate(targets, length)) == scored(sliding(targets, length, stride)) == list(range(1, targets + 1))
    for part in sliding(targets, length, stride)[1:]:
        assert part.scored <= stride and part.starts.max() + length <= targets


@pytest.mark.parametrize("encoding", ["sinusoidal", "rope", "t5", "alibi", "fox"])
def test_windows_that_slide_are_a_loop_over_the_tokens(encoding: str) -> None:
    made, model = objective(), model_of(encoding)
    content = made.splits["test"]
    for length in made.lengths:
        found, targets = made.score(model, "test", length), made.targets_of("test")

        def loop(longest: int, targets: int = targets) -> float:
            """The window of a token is the first that reaches it; it ends with the text at the latest."""
            steps = [max(0, math.ceil((place - longest) / STRIDE)) * STRIDE for place in range(1, targets + 1)]
            firsts = [min(step, targets - longest) for step in steps]
            assert all(place - first > min(place - 1, longest - STRIDE) for place, first in enumerate(firsts, 1))
            return float(np.mean([bits_of(model, content, place, first) for place, first in enumerate(firsts, 1)]))

        apart = [bits_of(model, content, place + 1, place // length * length) for place in range(targets)]
        assert found.items == targets == 24
        assert found.values["bits_per_character"] == pytest.approx(np.mean(apart), rel=1e-12)
        assert found.values["bits_per_character_sliding"] == pytest.approx(loop(length), rel=1e-12)
        assert found.values["bits_per_character_cut"] == pytest.approx(loop(min(length, LENGTH)), rel=1e-12)
        ends, windows = found.positions["ends"], targets // length
        bits = np.add.reduceat(np.reshape(apart, (windows, length)).sum(0), [0, *ends[:-1]])
        assert found.positions["nats"] / math.log(2) == pytest.approx(bits, rel=1e-12)
        assert found.positions["targets"].sum() == targets and ends[-1] == length
        for metric in made.metrics:  # and the report makes them from the items again
            values = resampled(metric, [found.each])
            assert values is not None and values.mean() == pytest.approx(found.values[metric.name], rel=0.1)


def test_scores_do_not_depend_on_how_many_tokens_are_scored_at_once() -> None:
    model = model_of("rope")
    for length in (LENGTH, 12):
        one, other = (objective(batch_tokens=size).score(model, "test", length) for size in (1, 10_000))
        assert one.values == pytest.approx(other.values, rel=1e-12)
        assert one.positions["nats"] == pytest.approx(other.positions["nats"], rel=1e-12)


def test_what_cannot_be_read_beyond_the_trained_length_can_still_be_cut() -> None:
    made, model = objective(), model_of("learned")
    short, long = (made.score(model, "test", length) for length in (LENGTH, 12))
    assert set(long.values) == {"bits_per_character_cut"} and not long.positions
    assert long.values["bits_per_character_cut"] == short.values["bits_per_character_sliding"]
    assert set(long.why) == {"bits_per_character", "bits_per_character_sliding"}
    assert all("8" in why for why in long.why.values()), long.why


def test_bins_are_single_places_first_and_end_at_the_trained_length() -> None:
    assert bins(20, 9).tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 16, 20]
    assert bins(3, 9).tolist() == [1, 2, 3]
    assert len(bins(65_536, 1_000)) < 64


def test_factors_are_kept_as_they_are_and_give_whole_lengths() -> None:
    made = EvaluationConfig(length_factors=[1.0, 1.1, 4])
    assert [repr(factor) for factor in made.length_factors] == ["1", "1.1", "4"], "what is hashed stays an int"
    assert made.lengths(10) == [10, 11, 40]
    with pytest.raises(ConfigError, match=r"1\.1 times the length 64 is 70\.4, no whole number of tokens"):
        made.lengths(64)
    with pytest.raises(ConfigError, match="must be more than 0 each, 1 among them"):
        EvaluationConfig(length_factors=[1, 0])
    suite, where = find_suite("quick", "--suite"), {"evaluation.length_factors": [1, 1.7]}
    with pytest.raises(ConfigError, match=r"task enwik8: .*1\.7 times the length 64 is 108.8"):
        make(suite, Selection(changes=where))


def test_windows_that_cannot_be_made_are_refused() -> None:
    with pytest.raises(ConfigError, match="stride = 5: must be at most the shortest length that is scored, 4"):
        objective(stride=5)
    with pytest.raises(DataError, match="lengths 8, 24, 40 hold the same ones in multiples of 120"):
        objective(length_factors=[1, 3, 5])
    with pytest.raises(ConfigError, match=r"here: evaluation\.stride = 8: objective 'masked_lm' has no windows that"):
        task_at("mlm", "smoke", {"evaluation.stride": (8, "here")})
