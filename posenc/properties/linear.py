"""Linear attention against its own weights of all pairs, and how far it is from softmax attention."""

from __future__ import annotations

import torch

from posenc.attention.linear import kernel as linear
from posenc.backbone.transformer import Transformer
from posenc.properties.hooks import hook_context
from posenc.properties.subject import FEATURES, Outcome, Subject, apart, config, over, parts_of, shown

CLOSE = 1e-9
NORM = 3.0
"""Of queries and keys, of 16 channels: near what projections give at the start."""


@torch.no_grad()
def linear_form(subject: Subject) -> Outcome:
    """Linear attention by chunks and states gives what the weights of all its pairs, multiplied out, give."""
    measured = dict[str, float]()
    for stack, _, whole in subject.models(kind="performer"):
        for layer, encoding in enumerate(parts_of(whole)):
            generator = torch.Generator().manual_seed(subject.seed)
            size = (3, 1, encoding.stack.heads, subject.length, encoding.stack.head_width)
            queries, keys, values = torch.randn(size, generator=generator, dtype=torch.float64)
            queries, keys = (NORM * x / x.norm(dim=-1, keepdim=True) for x in (queries, keys))
            context = hook_context(encoding, subject.places_of(subject.length), queries=subject.length)
            context.layer = layer
            kernel = linear.kernel(encoding, causal=encoding.stack.causal, features=FEATURES, chunk=8)
            kernel.redraw(subject.seed)
            plain = kernel.plain(queries, keys, values, encoding, context)
            found = apart(kernel.attend(queries, keys, values, encoding, context), plain)
            measured[stack] = max(found, measured.get(stack, 0.0))
    if not measured:
        return "", "", "it serves no linear attention"
    return "the same", shown(measured), over(measured, "by chunks it gives something else", CLOSE)


@torch.no_grad()
def beside_softmax(subject: Subject) -> Outcome:
    """How far a Performer's first layer is from softmax attention with the same weights, at the start of training."""
    said = list[str]()
    for causal in (True, False):
        direction = "causal" if causal else "bidirectional"
        if not {f"{direction} softmax", f"{direction} performer"} <= subject.served.keys():
            continue
        found = []
        for kind in ("softmax", "performer"):
            shape = config(causal, kind)
            model = Transformer(shape, subject.encoding, subject.trained, axes=subject.axes).initialise(subject.seed)
            stack = model.double().eval().stacks[0][1]
            encoding, attention = stack.encoding.at(0), stack.get_submodule("layers.0.attention")
            context = hook_context(stack.encoding, subject.places_of(subject.length), queries=subject.length)
            generator = torch.Generator().manual_seed(subject.seed)
            x = torch.randn(1, subject.length, shape.width, generator=generator, dtype=torch.float64)
            found.append(attention(x, encoding, context))
        error = ((found[1] - found[0]).norm() / found[0].norm()).item()
        told = "says nothing of softmax" if error > 1 else "a kernel of its own"
        said.append(f"{direction} {error:.2f} of the norm ({told})")
    if not said:
        return "", "", "it does not serve both softmax and linear attention"
    return "told", f"with {FEATURES} features: {', '.join(said)}", ""
