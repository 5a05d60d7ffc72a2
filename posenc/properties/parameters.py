"""Parameters: all of an encoding's own learn, and no other starts in another way for it."""

from __future__ import annotations

import torch
from torch import nn

from posenc.backbone.transformer import is_positional
from posenc.properties.subject import Outcome, Subject


def gradients(subject: Subject) -> Outcome:
    """Every positional parameter gets a gradient, finite and not zero."""
    tokens, counts, wrong = subject.tokens(), [], []
    for stack, model, encoding in subject.models():
        learnt = {name: p for name, p in encoding.named_parameters() if p.requires_grad}
        if not learnt:
            return "", "", "it has no parameters"
        loss = nn.functional.cross_entropy(subject.logits(model, tokens).flatten(0, 1), tokens.roll(1, 1).flatten())
        given = torch.autograd.grad(loss, list(learnt.values()), allow_unused=True)
        dead = [n for n, g in zip(learnt, given, strict=True) if g is None or not (g.isfinite().all() and g.any())]
        wrong += [f"{name} of {stack}" for name in dead]
        counts.append(f"{stack} {sum(parameter.numel() for parameter in learnt.values())}")
    complaint = f"no gradient, or none that is finite: {', '.join(wrong)}" if wrong else ""
    return "all learnt", f"parameters: {', '.join(counts)}", complaint


def start(subject: Subject) -> Outcome:
    """Non-positional parameters start bit for bit as those of `none`, and a seed gives the same start again."""
    wrong, count = set[str](), 0
    plains = Subject("none", subject.seed, subject.trained // 2)
    plains.served = subject.served
    for models in zip(subject.models(), subject.models(), plains.models(), strict=True):
        first, again, plain = ({**dict(m.named_parameters()), **dict(m.named_buffers())} for _, m, _ in models)
        # Features drawn in a wider space are others than those of `none`: they are no parameters.
        drawn = {name for name in first.keys() & plain.keys() if name.endswith("kernel.projection")}
        wider = {name for name in drawn if first[name].shape != plain[name].shape}
        shared = {name for name in (*first, *plain) if not is_positional(name)} - wider
        same = {name for name in first.keys() & plain.keys() if torch.equal(first[name], plain[name])}
        twice = {f"{name} (a second time)" for name in first if not torch.equal(first[name], again[name])}
        wrong, count = wrong | (shared - same) | twice, count + len(shared)
    why = f"not the same: {', '.join(sorted(wrong))}" if wrong else ""
    return "the same", f"{count} tensors compared, {len(wrong)} differ", why
