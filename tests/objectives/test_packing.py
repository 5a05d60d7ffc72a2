"""Packed rows: every token at its place, loss and gradients those of padded rows, whole trainings too, and refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from kernels import call_of
from models import served
from runs import numbers

from posenc.api.encoding import Context, Encoding
from posenc.api.objective import Batch, Objective, cut
from posenc.attention.softmax import xformers as memory_efficient
from posenc.backbone.config import BackboneConfig
from posenc.backbone.transformer import Transformer
from posenc.common.errors import ConfigError
from posenc.config.objectives import OBJECTIVES
from posenc.config.objectives import objective as objective_named
from posenc.config.task import EvaluationConfig, TrainingConfig, available, task_at
from posenc.data.corpus import assemble
from posenc.data.tokens import Kind, Tokeniser, tokeniser
from posenc.objectives import packing
from posenc.objectives.classification import Classification
from posenc.objectives.epochs import pad
from posenc.objectives.matching import Matching
from posenc.objectives.packing import Packed, pack
from posenc.objectives.translation import Translation
from posenc.plan.cell import Cell
from posenc.plan.plan import Selection, find_suite, make
from posenc.records.store import Store
from posenc.running import torchrun as distributed
from posenc.training import cell as training
from posenc.training.cell_terms import CellTerms

TEXT = "the cat dog saw big small a bird and tree ran sat on in house sang"
WORDS = TEXT.split()
LENGTH, ROWS = 32, 8
KINDS = ("classes", "scores", "matching", "translation")
SLOW = pytest.mark.slow


@pytest.fixture(autouse=True, scope="module")
def words(one_thread: None) -> Tokeniser:
    """A token a word."""
    return tokeniser(Kind("wordpiece", 200), [TEXT] * 5, "words of packed rows", None)


# Where each token stands


def examples(lengths: list[int], seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    dice = np.random.default_rng(seed)
    return pad([dice.integers(1, 1000, size=length) for length in lengths])


def check(packed: Packed, tokens: torch.Tensor, mask: torch.Tensor, capacity: int) -> None:
    rows, width = packed.tokens.shape
    assert packed.segments.shape == (rows, width)
    assert packed.segments.dtype == packed.places.dtype == torch.int64
    assert width <= capacity
    assert torch.equal(packed.tokens.flatten()[packed.places[mask]], tokens[mask])
    assert torch.equal(packed.gather(packed.tokens[..., None])[mask][:, 0], tokens[mask])
    taken = packed.places[mask]
    assert len(taken.unique()) == len(taken), "no two tokens in one place"
    assert 0 <= packed.places.min() <= packed.places.max() < rows * width
    owner = torch.full((rows * width,), -1)
    for index, (places, real) in enumerate(zip(packed.places, mask, strict=True)):
        assert (places[real].diff() == 1).all(), "an example stands together"
        assert places[real][0] // width == places[real][-1] // width, "in one row"
        owner[places[real]] = index
    for row, segments in zip(owner.view(rows, width), packed.segments, strict=True):
        assert torch.equal(row.diff() != 0, segments.diff() != 0), "a segment is an example, or the unused end"
        assert (segments.diff() >= 0).all()
        assert (row >= 0)[: (row >= 0).sum()].all(), "only the end is unused"
    assert (owner.view(rows, width) >= 0).sum(1).max() == width, "as wide as the fullest row"
    assert torch.equal(packed.firsts().flatten().nonzero()[:, 0], packed.places[:, 0].sort().values)


@given(
    sides=st.lists(st.tuples(st.integers(1, 20), st.integers(1, 20)), min_size=1, max_size=30),
    room=st.integers(0, 50),
    seed=st.integers(0, 9),
)
def test_every_token_stands_at_its_place(sides: list[tuple[int, int]], room: int, seed: int) -> None:
    both = [examples([pair[side] for pair in sides], seed + side) for side in (0, 1)]
    capacity = max(max(pair) for pair in sides) + room
    (alone,), pair = pack(both[0], capacity=capacity), pack(*both, capacity=capacity)
    for packed, (tokens, mask) in [(alone, both[0]), *zip(pair, both, strict=True)]:
        check(packed, tokens, mask, capacity)
    assert alone.tokens.numel() <= both[0][0].numel()
    assert sum(side.tokens.numel() for side in pair) <= sum(tokens.numel() for tokens, _ in both)
    again = [*pack(both[0], capacity=capacity), *pack(*both, capacity=capacity)]
    for first, second in zip([alone, *pair], again, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    # Source and target of an example: the same row and number.
    source, target = pair
    assert len(source.tokens) == len(target.tokens)
    for row in range(len(source.tokens)):
        found = []
        for side in pair:
            width = side.tokens.shape[1]
            here = side.places[:, 0] // width == row
            found.append({i: int(side.segments.flatten()[side.places[i, 0]]) for i in here.nonzero()[:, 0].tolist()})
        assert found[0] == found[1]


@pytest.mark.parametrize(
    ("lengths", "capacity", "rows"),
    [
        ([5, 3, 4, 4, 8], 8, 3),
        ([40] * 32, 128, 32),  # rows of 120 would leave one of them a third empty
        ([10, 2, 2, 2, 2, 2], 64, 2),
        ([7], 64, 1),
    ],
)
def test_what_fits_exactly_leaves_nothing_empty(lengths: list[int], capacity: int, rows: int) -> None:
    (packed,) = pack(examples(lengths, 0), capacity=capacity)
    assert packed.tokens.numel() == sum(lengths)
    assert len(packed.tokens) == rows


def test_what_cannot_be_packed_is_refused() -> None:
    with pytest.raises(ValueError, match=r"3 to 9 tokens.*8"):
        pack(examples([3, 9], 0), capacity=8)
    with pytest.raises(ValueError, match="0 to 9 tokens"):
        pack(examples([0, 9], 0), capacity=9)


def test_packed_rows_serve_xformers_block_diagonal_mask(fresh_seed: int) -> None:
    pytest.importorskip("xformers")
    lengths = np.random.default_rng(fresh_seed).integers(1, 20, size=15).tolist()
    (packed,) = pack(examples(lengths, fresh_seed), capacity=40)
    blocks = memory_efficient.packed_bias(packed.segments, False).q_seqinfo.seqstart_py
    assert set(packed.places[:, 0].tolist()) <= set(blocks)


# The same loss and gradients


def objective(kind: str, words: Tokeniser, seed: int) -> Objective:
    """One whose rows are of very unequal length: half of them long, half short."""
    dice = np.random.default_rng(seed)

    def text(index: int) -> str:
        return " ".join(dice.choice(WORDS, size=dice.integers(10, 15) if index % 2 else dice.integers(1, 4)))

    settings = TrainingConfig(steps=1, batch=ROWS, learning_rate=1.0, validate_every=1, label_smoothing=0.1)
    scored: dict[str, Any] = {"length_factors": [1]}
    rows: list[Any]
    if kind in ("classes", "scores"):
        rows = [
            (text(index), text(index), index // 2 % 2 if kind == "classes" else index * 0.3) for index in range(ROWS)
        ]
        scored["metrics"] = ["accuracy" if kind == "classes" else "pearson"]
        data = assemble("toy", ("first", "second", "label"), dict.fromkeys(("train", "validation", "test"), rows))
        return Classification(data, words, LENGTH, 0.1, settings, EvaluationConfig(**scored))
    if kind == "matching":
        rows = [(*(text(index) for _ in "abc"), "BC"[index // 2 % 2]) for index in range(ROWS)]
        data = assemble("toy", ("a", "b", "c", "label"), dict.fromkeys(("train", "validation", "test"), rows))
        return Matching(data, words, LENGTH, settings, EvaluationConfig(**scored))
    rows = [(text(index), text(index)) for index in range(ROWS)]
    data = assemble("toy", ("source", "target"), dict.fromkeys(("train", "validation", "test"), rows))
    return Translation(data, words, LENGTH, settings, EvaluationConfig(**scored))


def network(kind: str, encoding: str, words: Tokeniser, seed: int, backend: str = "auto", **more: Any) -> Transformer:
    """In float64, with parameters far from a start where attention is nearly even."""
    of = objective_named(kind if kind in OBJECTIVES.entries() else "classification")
    shape: dict[str, Any] = {"layers": 2, "width": 16, "heads": 2, "feedforward": 16, "vocabulary": words.size, **more}
    outputs = {"classes": 2, "scores": 1, "matching": 1}.get(kind, 0)
    config = BackboneConfig(form=of.form, head=of.head, outputs=outputs, **shape)  # type: ignore[arg-type]
    model = Transformer(config, encoding, LENGTH, backend).double().initialise(seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)).mul_(1.5)
    return model


def gradients(model: Transformer, loss: torch.Tensor) -> list[torch.Tensor | None]:
    return list(torch.autograd.grad(loss, list(model.parameters()), allow_unused=True))


@pytest.mark.parametrize("encoding", [name for name, _ in served("softmax", "encoder")])
@pytest.mark.parametrize("kind", KINDS)
def test_loss_and_gradients_are_those_of_padded_rows(
    kind: str, encoding: str, words: Tokeniser, fresh_seed: int
) -> None:
    made, model = objective(kind, words, fresh_seed), network(kind, encoding, words, fresh_seed)
    batch = made.batch(0, 1, ROWS)
    packed = made.pack(batch)
    expected, got = made.loss(model, batch), made.loss(model, packed)
    torch.testing.assert_close(got, expected, atol=1e-10, rtol=1e-10)
    ours, theirs = gradients(model, got), gradients(model, expected)
    assert any(gradient is not None and gradient.abs().max() > 1e-3 for gradient in theirs)
    for own, other in zip(ours, theirs, strict=True):
        assert (own is None) == (other is None)
        if own is not None and other is not None:
            torch.testing.assert_close(own, other, atol=1e-10, rtol=1e-10)


def read(batch: Batch, kind: str) -> int:
    """How many places the model's stacks work on."""
    own = 5 if kind == "translation" else 3
    sides = [batch[0], batch[2]] if kind == "translation" else [batch[0]]
    if len(batch) > own:
        sides = list(batch[own::3])
    return sum(side.numel() for side in sides)


@pytest.mark.parametrize("kind", KINDS)
def test_packing_saves_places_and_counts_the_same_tokens(kind: str, words: Tokeniser, fresh_seed: int) -> None:
    made = objective(kind, words, fresh_seed)
    batch = made.batch(0, 1, ROWS)
    packed = made.pack(batch)
    assert made.seen(batch) <= read(packed, kind) < read(batch, kind)
    assert made.seen(packed) == made.seen(batch)
    assert made.targets(packed) == made.targets(batch)
    for part in cut(batch, 4):  # packed after the cut: a part's places are its own
        assert read(made.pack(part), kind) <= read(part, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_what_an_encoding_is_told(kind: str, words: Tokeniser, fresh_seed: int) -> None:
    """No mask, so that packed rows are all that hides a key; where each example begins, where padded rows say so."""
    told: list[Context] = []

    class Told(Encoding):
        def embed(self, embeddings: torch.Tensor, positions: torch.Tensor, context: Context) -> torch.Tensor:
            told.append(context)
            return embeddings

    made, model = objective(kind, words, fresh_seed), network(kind, "none", words, fresh_seed)
    for _, stack in model.stacks:
        stack.encoding = Told(stack.encoding.stack)
    batch = made.batch(0, 1, ROWS)
    made.loss(model, batch)
    padded = told.copy()
    made.loss(model, made.pack(batch))
    assert len(told) == 2 * len(padded)
    for before, context in zip(padded, told[len(padded) :], strict=True):
        assert memory_efficient.packed_alone(call_of(model.encodings()[0], context))
        assert (before.cls is None) == (context.cls is None)
        if before.cls is not None and context.cls is not None:
            assert context.cls.sum() == before.cls.sum() == before.cls.shape[0]
            assert (context.key_positions[..., 0][context.cls] == 0).all()


@pytest.mark.parametrize("backend", ["reference", "sdpa", "blocks", "flex"])
@pytest.mark.parametrize("encoding", ["rope", "t5"])
@pytest.mark.parametrize("kind", ["classes", "translation"])
def test_backends_agree(kind: str, encoding: str, backend: str, words: Tokeniser, fresh_seed: int) -> None:
    made = objective(kind, words, fresh_seed)
    batch = made.batch(0, 1, ROWS)
    expected = network(kind, encoding, words, fresh_seed, "reference")
    model = network(kind, encoding, words, fresh_seed, backend)
    with torch.no_grad():
        got, wanted = made.loss(model, made.pack(batch)), made.loss(expected, batch)
    torch.testing.assert_close(got, wanted, atol=1e-10, rtol=1e-10)


def test_with_dropout_the_masks_fall_elsewhere_and_nothing_else_is_wrong(words: Tokeniser, fresh_seed: int) -> None:
    made = objective("translation", words, fresh_seed)
    model = network("translation", "shaw", words, fresh_seed, dropout=0.2, attention_dropout=0.2).train()
    batch = made.batch(0, 1, ROWS)
    found = gradients(model, made.loss(model, made.pack(batch)))
    assert all(gradient is None or gradient.isfinite().all() for gradient in found)
    torch.testing.assert_close(made.loss(model.eval(), made.pack(batch)), made.loss(model, batch))


# Whole trainings


def cell(task: str, **changes: Any) -> Cell:
    settings: dict[str, Any] = {
        "backbone.layers": 1, "backbone.width": 16, "backbone.heads": 2, "backbone.feedforward": 16, "start": "scratch",
        "training.steps": 4, "training.batch": 8, "training.validate_every": 2, "training.log_every": 1,
        "training.clip": 1.0, "training.warmup": 1, "evaluation.beam": 1, "length": 24,
    }  # fmt: skip
    if task == "glue/mrpc":
        settings["evaluation.tokens"] = 2000
    settings |= {key.replace("__", "."): value for key, value in changes.items()}
    (made,) = make(find_suite(task), Selection(encodings=["t5"], lengths=[24], seeds=[0], changes=settings)).cells
    return made


def trained(cell: Cell, folder: Path) -> tuple[list[float], list[Any]]:
    """The loss of each step, and all scores."""
    terms, store = CellTerms("test", folder), Store(folder)
    if cell.config["runtime"]["processes"] > 1:
        distributed.train_cell(cell, terms, lambda: False)
    else:
        training.train(cell, terms)
    record = store.read_record(cell.id)
    assert record is not None
    assert record["status"] == "done", record["traceback"]
    losses = [row["loss"] for row in store.curve(cell.id) if "loss" in row]
    return losses, [row["value"] for row in record["scores"]]


@pytest.mark.parametrize("task", ["glue/mrpc", *(pytest.param(x, marks=SLOW) for x in ("cail2019-scm", "multi30k"))])
def test_a_training_is_that_of_padded_rows(task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def counted(*sides: Any, capacity: int) -> list[Packed]:
        calls.append(capacity)
        return pack(*sides, capacity=capacity)

    monkeypatch.setattr(packing, "pack", counted)
    padded, packed = cell(task), cell(task, training__packed=True, training__accumulate=2)
    assert padded.id != packed.id
    losses, scores = trained(padded, tmp_path)
    assert not calls
    other_losses, other_scores = trained(packed, tmp_path)
    assert len(losses) == 4
    assert calls == [24] * 4 * 2, "once for each part of each step, and never to score"
    assert other_losses == pytest.approx(losses, abs=1e-5)
    assert other_scores == pytest.approx(scores, abs=1e-4)
    trained(packed, tmp_path / "again")
    assert numbers(Store(tmp_path / "again"), packed.id) == numbers(Store(tmp_path), packed.id)


@pytest.mark.slow
def test_two_processes_pack_each_its_own_rows(tmp_path: Path) -> None:
    one = cell("multi30k")
    two = cell("multi30k", training__packed=True, training__accumulate=2, runtime__processes=2)
    (losses, scores), (other_losses, other_scores) = (trained(made, tmp_path) for made in (one, two))
    assert other_losses == pytest.approx(losses, abs=1e-5)
    assert other_scores == pytest.approx(scores, abs=1e-4)


# What is refused


@pytest.mark.parametrize("name", sorted(available("tasks")))
def test_rows_of_one_length_are_not_packed(name: str) -> None:
    changes = {"training.packed": (True, "--set training.packed")}
    if task_at(name, "smoke", {}).objective in ("classification", "matching", "translation"):
        assert task_at(name, "smoke", changes).training.packed
        return
    with pytest.raises(ConfigError, match=r"training\.packed = true: rows of objective .* one length"):
        task_at(name, "smoke", changes)


def test_a_parent_whose_rows_have_one_length_is_trained_as_it_is() -> None:
    parent, made = make(find_suite("glue/mrpc"), Selection(encodings=["rope"], changes={"training.packed": True})).cells
    assert made.parent == parent.id
    assert made.config["training"]["packed"]
    assert not parent.config["training"]["packed"]
