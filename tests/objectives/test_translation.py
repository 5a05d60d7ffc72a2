"""Translation: beam search against plain searches, batches against single sentences, BLEU, what is left out."""

from __future__ import annotations

import itertools
import math
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from models import CACHED, serves
from torch.nn import functional

from posenc.api.objective import cut
from posenc.backbone.config import BackboneConfig
from posenc.backbone.decode import translate
from posenc.backbone.transformer import Transformer
from posenc.common.errors import ConfigError, DataError
from posenc.config.task import task_at
from posenc.data import sources
from posenc.data.corpus import Corpus, assemble
from posenc.data.tokens import Kind, Tokeniser, tokeniser
from posenc.objectives.translation import Translation

BEGIN, END, PAD = 2, 3, 0
BACKBONE = BackboneConfig(form="encoder-decoder", vocabulary=9, layers=2, width=16, heads=2, feedforward=16)


def model_of(encoding: str, seed: int = 0, config: BackboneConfig = BACKBONE, length: int = 16) -> Transformer:
    model = Transformer(config, encoding, length).double().initialise(seed).eval()
    with torch.no_grad():  # at the start all tokens are about as likely: far from what beam search meets
        for parameter in model.parameters():
            parameter.mul_(2.0)
    return model


def rows_of(seed: int, lengths: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    dice = torch.Generator().manual_seed(seed)
    tokens = torch.randint(4, 9, (len(lengths), max(lengths)), generator=dice)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return tokens.masked_fill(~mask, PAD), mask


def search(model: Transformer, tokens: torch.Tensor, mask: torch.Tensor, **more: object) -> list[list[int]]:
    given = {"beam": 4, "length_penalty": 0.6, "limits": [12] * len(tokens), "banned": (PAD, 1, BEGIN)}
    return translate(model, tokens, mask, begin=BEGIN, end=END, **(given | more))  # type: ignore[arg-type]


@pytest.mark.parametrize("encoding", [name for name in CACHED if serves(name, "encoder-decoder")])
def test_with_a_cache_or_without_the_same_token_by_token(encoding: str) -> None:
    for seed in range(3):
        model = model_of(encoding, seed)
        tokens, mask = rows_of(seed, [7, 3, 5, 1])
        found = search(model, tokens, mask, cached=True)
        assert found == search(model, tokens, mask, cached=False)
    assert any(found)


@pytest.mark.parametrize("encoding", ["none", "learned", "t5", "shaw", "rope"])
def test_a_batch_is_its_sentences_one_by_one(encoding: str) -> None:
    model = model_of(encoding, 5)
    lengths, limits = [7, 3, 5, 1, 6], [12, 4, 9, 1, 16]
    tokens, mask = rows_of(5, lengths)
    together = search(model, tokens, mask, limits=limits)
    alone = [
        search(model, tokens[row : row + 1, :size], mask[row : row + 1, :size], limits=[limit])[0]
        for row, (size, limit) in enumerate(zip(lengths, limits, strict=True))
    ]
    assert together == alone
    assert all(len(row) < limit for row, limit in zip(together, limits, strict=True))
    assert together[3] == []  # its limit leaves room for the end alone


def log_probability(model: Transformer, tokens: torch.Tensor, row: tuple[int, ...]) -> float:
    """Of a whole translation, its end included, banned tokens out of the question after the normalisation."""
    read = torch.tensor([[BEGIN, *row]])
    scores = model(tokens, read).log_softmax(-1)[0]
    return float(sum(scores[place, token] for place, token in enumerate((*row, END))))


def test_a_beam_as_wide_as_all_there_is_finds_the_best_of_all() -> None:
    model, limit = model_of("rope", 3), 4
    tokens, mask = rows_of(3, [5])
    allowed = [token for token in range(9) if token not in (PAD, 1, BEGIN, END)]
    rows = [row for size in range(limit) for row in itertools.product(allowed, repeat=size)]
    with torch.no_grad():
        every = {row: log_probability(model, tokens, row) for row in rows}
    for penalty in (0.0, 0.6, 2.0):
        best = max(every, key=lambda row: every[row] / (len(row) + 1) ** penalty)
        found = search(model, tokens, mask, beam=len(every) + 1, length_penalty=penalty, limits=[limit])
        assert tuple(found[0]) == best, penalty


def fairseq(
    model: Transformer, tokens: torch.Tensor, beam: int, penalty: float, limit: int, shortest: int
) -> tuple[int, ...]:
    """fairseq's sequence_generator.py written again, for one sentence, without a cache."""
    live: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    finished: list[tuple[float, tuple[int, ...]]] = []
    for step in range(limit):
        candidates = []
        read = torch.tensor([[BEGIN, *row] for _, row in live])  # all are as long
        logits = model(tokens.expand(len(live), -1), read)[:, -1]
        for (score, row), scored in zip(live, logits.log_softmax(-1).tolist(), strict=True):
            for token in (one for one in range(9) if one not in (PAD, 1, BEGIN)):
                if (token == END and step < shortest and step < limit - 1) or (token != END and step == limit - 1):
                    continue
                candidates.append((score + scored[token], row, token))
        candidates.sort(key=lambda one: -one[0])
        candidates = candidates[: 2 * beam]
        for score, row, token in candidates[:beam]:
            if token == END and len(finished) < beam:
                finished.append((score / (step + 1) ** penalty, row))
        if len(finished) == beam:
            break
        live = [(score, (*row, token)) for score, row, token in candidates if token != END][:beam]
    return max(finished, key=lambda one: one[0])[1]


@pytest.mark.parametrize("shortest", [0, 1, 3])
@pytest.mark.parametrize("beam", [2, 3, 4, 5, 6])
def test_beams_are_fairseqs(beam: int, shortest: int, fresh_seed: int) -> None:
    ended = 0
    for seed in range(fresh_seed, fresh_seed + 200):
        if seed >= fresh_seed + 6 and ended:
            break
        model = model_of("rope", seed)
        with torch.no_grad():
            model.embedding.weight[END] *= 2.5  # so that many would end at once
            for penalty, limit in ((0.0, 7), (0.6, 7), (1.5, 5)):
                tokens, mask = rows_of(seed, [5])
                more = {"beam": beam, "length_penalty": penalty, "limits": [limit], "shortest": shortest}
                (found,) = search(model, tokens, mask, **more)
                assert tuple(found) == fairseq(model, tokens, beam, penalty, limit, shortest)
                assert len(found) >= shortest
                ended += len(found) == shortest
    assert ended, "where no translation is as short as it may be, nothing was held back"


def test_a_limit_goes_before_the_shortest_length() -> None:
    model = model_of("rope", 0)
    tokens, mask = rows_of(0, [5, 4])
    first, second = search(model, tokens, mask, limits=[1, 8], shortest=2)
    assert first == []
    assert len(second) >= 2


def test_a_beam_of_one_is_greedy() -> None:
    for seed in range(5):
        model = model_of("sinusoidal", seed)
        tokens, mask = rows_of(seed, [6])
        row: list[int] = []
        with torch.no_grad():
            while len(row) < 11:
                scores = model(tokens, torch.tensor([[BEGIN, *row]]))[0, -1]
                scores[[PAD, 1, BEGIN]] = -math.inf
                if (token := int(scores.argmax())) == END:
                    break
                row.append(token)
        # One difference: a beam of one takes the best token even where the end is as good as any.
        assert search(model, tokens, mask, beam=1)[0] == row


def test_a_wider_beam_never_finds_a_less_likely_translation_on_the_whole() -> None:
    """Not of each sentence (a wider beam may end earlier), but of many."""
    totals = []
    for beam in (1, 8):
        total = 0.0
        for seed in range(8):
            model = model_of("rope", seed)
            tokens, mask = rows_of(seed, [6])
            found = search(model, tokens, mask, beam=beam, length_penalty=0.0)
            with torch.no_grad():
                total += log_probability(model, tokens, tuple(found[0]))
        totals.append(total)
    assert totals[1] > totals[0]


PAIRS = [
    ("a dog runs .", "ein Hund läuft ."), ("a cat sleeps .", "eine Katze schläft ."),
    ("two men sit .", "zwei Männer sitzen ."), ("snow .", "Schnee ."),
    ("a man eats bread and soup .", "ein Mann isst Brot und Suppe ."),
    ("the dog sees the cat in the garden .", "der Hund sieht die Katze im Garten ."),
]  # fmt: skip


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Corpus:
    monkeypatch.setenv("POSENC_CACHE", str(tmp_path / "cache"))
    return assemble("pairs", ("source", "target"), {"train": PAIRS * 5, "validation": PAIRS[:3], "test": PAIRS[2:]})


def tokens_for(corpus: Corpus) -> Tokeniser:
    texts = [text for row in corpus.rows["train"] for text in row]
    return tokeniser(Kind("bpe", 400), texts, corpus.digest, None)


def objective(corpus: Corpus, length: int = 40, **changes: object) -> Translation:
    task = task_at("multi30k", "small", {})
    training = replace(task.training, **{"batch": 4, **changes})  # type: ignore[arg-type]
    return Translation(corpus, tokens_for(corpus), length, training, task.evaluation)


def small_model(made: Translation) -> Transformer:
    config = replace(BACKBONE, vocabulary=made.tokens.size)
    return Transformer(config, "rope", made.length).double().initialise(0).eval()


def test_a_batch_says_what_it_reads_one_token_later(corpus: Corpus) -> None:
    made = objective(corpus)
    tokens = made.tokens
    source, source_mask, read, mask, said = made.batch(0, 1, 4)
    for row in range(4):
        ids = said[row][mask[row]].tolist()
        assert ids[-1] == tokens.sep
        assert read[row][mask[row]].tolist() == [tokens.cls, *ids[:-1]]
        assert source[row][source_mask[row]].tolist()[-1] == tokens.sep
        pair = tokens.decode(source[row][source_mask[row]].tolist()), tokens.decode(ids)
        assert pair in PAIRS
    assert (said[~mask] == tokens.pad).all()
    assert made.targets((source, source_mask, read, mask, said)) == int(mask.sum())
    assert made.seen((source, source_mask, read, mask, said)) == int(mask.sum() + source_mask.sum())


def test_an_epoch_has_every_pair_once_and_depends_on_the_seed(corpus: Corpus) -> None:
    made = objective(corpus, batch=5)
    epoch = [made.epochs.rows(1, step) for step in range(1, made.epochs.steps + 1)]
    assert sorted(np.concatenate(epoch).tolist()) == list(range(30))
    assert [row.tolist() for row in epoch] != [made.epochs.rows(2, step).tolist() for step in range(1, 7)]


def test_the_smoothed_loss_worked_out_by_hand(corpus: Corpus) -> None:
    made = objective(corpus, label_smoothing=0.1)
    model, batch = small_model(made), made.batch(0, 1, 4)
    source, source_mask, read, mask, said = batch
    scores = model(source, read, mask=source_mask, targets_mask=mask).log_softmax(-1).detach()
    total, count = 0.0, 0
    for row, place in mask.nonzero().tolist():
        of_truth = float(scores[row, place, said[row, place]])
        total -= 0.9 * of_truth + 0.1 * float(scores[row, place].mean())
        count += 1
    assert made.loss(model, batch).item() == pytest.approx(total / count, rel=1e-12)
    # Cut into parts, each weighed by its targets, it is the same.
    parts = [(made.loss(model, part).item(), made.targets(part)) for part in cut(batch, 2)]
    assert sum(loss * many for loss, many in parts) / count == pytest.approx(total / count, rel=1e-12)


def test_validation_has_the_plain_loss_alone_and_test_has_bleu_of_every_sentence(corpus: Corpus) -> None:
    made = objective(corpus, label_smoothing=0.1)
    model = small_model(made)
    assert made.choice.name == "target_loss"
    validation = made.score(model, "validation", 40)
    assert validation.values.keys() == {"target_loss"}
    batch = made._batch("validation", [0, 1, 2])
    logits = model(batch[0], batch[2], mask=batch[1], targets_mask=batch[3])[batch[3]]
    assert validation.values["target_loss"] == pytest.approx(
        functional.cross_entropy(logits, batch[4][batch[3]]).item()
    )
    tested = made.score(model, "test", 40)
    assert tested.items == 4
    assert {"bleu", "target_loss"} == tested.values.keys()
    assert "tok:13a" in tested.details["signature"]


def test_bleu_of_the_references_themselves_is_100_and_of_the_sources_what_the_baseline_says(corpus: Corpus) -> None:
    made = objective(corpus)
    score, details = made.bleu([target for _, target in PAIRS[2:]], "test")
    assert score == pytest.approx(100)
    assert "smooth:exp" in details["signature"]
    copied = made.baselines()["copying the source"]
    assert 0 < copied < 20
    assert copied == pytest.approx(made.bleu([source for source, _ in PAIRS[2:]], "test")[0])


def test_long_pairs_are_left_out_of_training_and_of_nothing_else(corpus: Corpus) -> None:
    whole = objective(corpus)
    longest = max(max(side.lengths) for side in whole.tokens_of["train"]) + 1
    made = objective(corpus, length=int(longest) - 1)
    assert made.data["left_out_of_training"] == 5
    assert "5 of 30 training pairs" in str(made.data["note"])
    assert len(made.texts["test"]) == 4
    details = made.score(small_model(made), "test", made.length).details
    assert details[f"targets cut to {made.length} tokens"] + details[f"sources cut to {made.length} tokens"] >= 1
    with pytest.raises(DataError, match=r"training pairs have at most 2 tokens"):
        objective(corpus, length=2)


def test_a_part_of_the_sentences_is_no_evaluation(corpus: Corpus) -> None:
    task = task_at("multi30k", "small", {})
    with pytest.raises(ConfigError, match="whole sentences"):
        Translation(corpus, tokens_for(corpus), 40, task.training, replace(task.evaluation, tokens=100))


def test_what_is_in_a_batch_together_changes_no_translation(corpus: Corpus) -> None:
    made = objective(corpus)
    model = small_model(made)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2.0)
    whole = made.translations(model, "test")
    made.evaluation = replace(made.evaluation, batch_tokens=1)
    assert made.translations(model, "test") == whole
    assert len(set(whole)) > 1


def test_the_papers_figures_stand_in_wmt14s_paper_scale() -> None:
    task = task_at("wmt14", "paper", {})
    backbone, training, evaluation = task.backbone, task.training, task.evaluation
    assert (backbone.layers, backbone.width, backbone.heads, backbone.feedforward) == (6, 512, 8, 2048)
    assert backbone.vocabulary == 37_000
    assert (backbone.norm, backbone.activation, backbone.dropout) == ("post", "relu", 0.1)
    assert (training.betas, training.learning_rate, training.schedule) == ((0.9, 0.98), 5e-4, "inverse_square_root")
    assert (training.warmup, training.label_smoothing, training.average) == (4000, 0.1, 5)
    assert (evaluation.beam, evaluation.length_penalty) == (4, 0.6)
    said = " ".join(task.card.paper_says)
    assert "27.3" in said
    assert "27.5" in said


@pytest.mark.data
@pytest.mark.skipif("POSENC_DATA" not in os.environ, reason="POSENC_DATA names no folder of official data")
@pytest.mark.parametrize("name", ["multi30k", "wmt14"])
def test_real_files_become_batches(name: str) -> None:
    task = task_at(name, "small", {})
    whole = sources.load(name, Path(os.environ["POSENC_DATA"]))
    assert isinstance(whole, Corpus)
    corpus = assemble(name, whole.fields, {**whole.rows, "train": whole.rows["train"][:2000]})
    texts = [text for row in corpus.rows["train"] for text in row]
    tokens = tokeniser(Kind("bpe", 1000), [str(text) for text in texts], corpus.digest, None)
    made = Translation(corpus, tokens, task.length, replace(task.training, batch=8), task.evaluation)
    source, *_ = made.batch(0, 1, 8)
    assert source.shape[0] == 8
    assert source.shape[1] <= task.length
    if name == "multi30k":
        assert made.baselines()["copying the source"] == pytest.approx(0.478, abs=0.001)
