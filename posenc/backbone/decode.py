"""Beam search for an encoder-decoder: all hypotheses of a batch in one forward pass a step, with or without a cache."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from posenc.attention.interface import DecodingCache
from posenc.backbone.transformer import Transformer


@torch.no_grad()
def translate(
    model: Transformer,
    sources: Tensor,
    mask: Tensor,
    *,
    beam: int,
    length_penalty: float,
    limits: Sequence[int],
    shortest: int = 0,
    begin: int,
    end: int,
    banned: Sequence[int],
    cached: bool = True,
) -> list[list[int]]:
    """The best translation that a beam search finds for each source, without `begin` and `end`.

    As fairseq has it: of the 2 x beam best continuations those that end, among the first `beam`, are finished, and the
    best `beam` others live on; a sentence is done when `beam` of its hypotheses have finished, or at its limit, where
    every living one has to end. Finished ones compete by log-probability / length^length_penalty, `end` counted.
    A sentence's translation does not depend on the others in its batch, but for rounding.

    Args:
        sources: (B,S) tokens. mask: (B,S) True at real ones.
        limits: for each source the most tokens that its translation may have, `end` among them.
        shortest: the fewest tokens that a translation has, `end` not counted, where its limit has room for them.
        banned: tokens that no translation has.
        cached: keep keys and values between steps; the same result for encodings that declare `cached_decoding`.

    Raises:
        NotPossibleError: cached, and the encoding's cached decoding would be another; or lengths it does not have.
    """
    device, sentences = sources.device, len(sources)
    active = list(range(sentences))
    finished: list[list[tuple[float, list[int]]]] = [[] for _ in active]
    memory = model.hidden(sources, mask=mask).repeat_interleave(beam, dim=0)
    memory_mask = mask.repeat_interleave(beam, dim=0)
    tokens = torch.full((sentences * beam, 1), begin, device=device)
    # The rows of a sentence begin alike: all but one of them are out, or the beam would hold one hypothesis K times.
    scores = torch.full((sentences, beam), -torch.inf, device=device, dtype=memory.dtype)
    scores[:, 0] = 0.0
    cache = DecodingCache(model.config.layers) if cached else None
    while active:
        step = tokens.shape[1]  # the length of a hypothesis that ends now
        closing = [limits[sentence] <= step for sentence in active]
        hidden = model.decode(tokens[:, -1:] if cached else tokens, memory, memory_mask=memory_mask, cache=cache)
        logits = model.logits(hidden[:, -1])
        scored = functional.log_softmax(logits.float() if logits.dtype != torch.float64 else logits, dim=-1)
        vocabulary = scored.shape[-1]
        scored[:, list(banned)] = -torch.inf
        if step <= shortest:
            scored[~torch.tensor(closing, device=device).repeat_interleave(beam), end] = -torch.inf
        ends = scored[:, end].clone()
        scored[torch.tensor(closing, device=device).repeat_interleave(beam)] = -torch.inf
        scored[:, end] = ends
        total = (scores.flatten()[:, None] + scored).view(len(active), -1)
        values, places = total.topk(min(2 * beam, total.shape[1]), dim=1)
        rows: list[int] = []
        following: list[int] = []
        kept_scores: list[list[float]] = []
        kept: list[int] = []
        # A row of Python for each sentence: small beside a step of the model.
        for index, (sentence, best, where) in enumerate(zip(active, values.tolist(), places.tolist(), strict=True)):
            living: list[tuple[float, int, int]] = []
            for rank, (value, place) in enumerate(zip(best, where, strict=True)):
                parent, token = divmod(place, vocabulary)
                if value == -torch.inf:
                    continue
                if token != end:
                    living.append((value, parent, token))
                elif rank < beam:
                    hypothesis = tokens[index * beam + parent, 1:].tolist()
                    finished[sentence].append((value / step**length_penalty, hypothesis))
            if closing[index] or len(finished[sentence]) >= beam or not living:
                continue
            kept.append(sentence)
            living = living[:beam] + [(-torch.inf, 0, end)] * (beam - len(living))
            rows += [index * beam + parent for _, parent, _ in living]
            following += [token for _, _, token in living]
            kept_scores.append([value for value, _, _ in living])
        active = kept
        chosen = torch.tensor(rows, device=device, dtype=torch.long)
        tokens = torch.cat((tokens[chosen], torch.tensor(following, device=device, dtype=torch.long)[:, None]), dim=1)
        scores = torch.tensor(kept_scores, device=device, dtype=scores.dtype)
        memory, memory_mask = memory[chosen], memory_mask[chosen]
        if cache is not None:
            cache.select(chosen)
    return [max(found, key=lambda pair: pair[0])[1] for found in finished]
