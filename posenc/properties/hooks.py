"""An encoding's hooks alone, without a model: norms they keep, precision they keep, positions they read."""

from __future__ import annotations

from functools import partial
from itertools import product

import torch
from torch import Tensor

from posenc.api.encoding import HOOKS, Context, Encoding
from posenc.properties.subject import FEATURES, Outcome, Subject, apart, over, parts_of, shown

FAR, FAR_ALONG = 100_000, 1000
"""Positions counted in tokens, and coordinates: along one axis no image has so many patches."""
PRECISIONS = {"bfloat16": 2.0**-7, "float32": 1e-5}
"""How far what a hook gives may be off, relative to its norm. Angles built in float32 are off by 1e-3 at FAR."""


def hook_context(encoding: Encoding, positions: Tensor, queries: int) -> Context:
    """For hooks called without a model: keys at positions (S,) or coordinates (S,A), the last of them queries too."""
    generator, keys = torch.Generator().manual_seed(0), len(positions)
    context = Context(stack=encoding.stack, queries=queries, keys=keys, device=positions.device, generator=generator)
    context.hidden = torch.randn(1, keys, encoding.stack.width, generator=generator, dtype=torch.float64)
    own = encoding.overrides("positions")
    places = positions[None, :, None] if positions.dim() == 1 else positions[None]
    context.coordinates = None if positions.dim() == 1 else places
    context.key_positions = encoding.positions(context) if own else places
    context.query_positions = context.key_positions[:, context.offset :]
    return context


def _arguments(encoding: Encoding, hook: str, context: Context) -> tuple[Tensor, ...]:
    """Random ones for a hook, in float64, but for the context."""
    stack, queries, keys = encoding.stack, context.queries, context.keys
    draw = partial(torch.randn, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    if hook == "embed":
        return draw(1, queries, stack.width), context.query_positions
    if hook == "distance_bias" and stack.axes > 1:
        return ((context.key_positions[0] - context.query_positions[0, :, None]).flatten(0, 1),)
    if hook == "distance_bias":
        return (torch.arange(1 - keys, 1 if stack.causal else keys),)
    if hook in ("score_bias", "pair_scores"):
        return draw(1, stack.heads, queries, stack.head_width), draw(1, stack.heads, keys, stack.head_width)
    if hook == "change_scores":
        drawn = [draw(1, stack.heads, *size) for size in ((queries, keys), (queries, stack.head_width))]
        return *drawn, draw(1, stack.heads, keys, stack.head_width)
    if hook == "mix_values":
        return (draw(1, stack.heads, queries, keys).softmax(dim=-1),)
    width = FEATURES if encoding.linear_form == "outside" else stack.head_width  # a Performer's features, or a head
    return draw(1, stack.heads, queries, width), context.query_positions


def far_apart(axes: int) -> Tensor:
    """Coordinates (S,A) from 0 to FAR_ALONG along each axis, none at the same pace."""
    steps = torch.arange(0, FAR_ALONG + 1, 2)
    return torch.stack([steps * (2 * axis + 1) % (FAR_ALONG + 1) for axis in range(axes)], dim=-1)


def norms(subject: Subject) -> Outcome:
    """Hooks on queries and keys leave their norms as they were, at positions to 100,000, or coordinates to 1,000."""
    measured, keeps = {}, False
    for stack, _, encoding in subject.models():
        keeps, limit = encoding.keeps_norms, encoding.max_length
        if subject.axes > 1:
            at = subject.places_of(limit) if limit else far_apart(subject.axes)
        else:
            at = torch.arange(0, FAR + 1, 50) if limit is None else torch.arange(limit)
        for part, hook in product(parts_of(encoding), ("rotate_query", "rotate_key")):
            if part.overrides(hook):
                context = hook_context(part, at, queries=len(at))
                x, positions = _arguments(part, hook, context)
                ratio = getattr(part, hook)(x, positions, context).norm(dim=-1) / x.norm(dim=-1)
                measured[f"{stack} {hook}"] = apart(ratio, torch.ones_like(ratio))
    if not measured:
        return "", "", "it leaves queries and keys alone"
    return f"keeps norms: {keeps}", shown(measured), over(measured, "norms change") if keeps else ""


@torch.no_grad()
def low_precision(subject: Subject) -> Outcome:
    """Hooks given bf16 or float32, at far positions or up to their last, are off from float64 by rounding alone."""
    measured: dict[str, dict[str, float]] = {name: {} for name in PRECISIONS}
    both = zip(subject.models(room=512), subject.models(room=512), strict=True)
    for (stack, _, whole), (_, _, other) in both:
        whole.float()  # as under autocast: parameters in float32, activations lower
        limit = whole.max_length or FAR
        at = torch.arange(max(0, limit - 512), limit)
        if subject.axes > 1:
            at = subject.places_of(limit, limit)[-512:] if whole.max_length else far_apart(subject.axes)[-512:]
        hooks = HOOKS[1:] if "softmax" in stack else HOOKS[1:4]
        pairs = zip(parts_of(whole), parts_of(other), strict=True)
        for (low, exact), hook, name in product(pairs, hooks, measured):
            if low.overrides(hook):
                worst = measured[name]
                contexts = [hook_context(encoding, at, queries=min(8, limit)) for encoding in (low, exact)]
                contexts[0].hidden = None if contexts[1].hidden is None else contexts[1].hidden.float()
                drawn = _arguments(low, hook, contexts[0])
                rounded = [x.to(getattr(torch, name)) if x.is_floating_point() else x for x in drawn]
                widened = [x.double() if x.is_floating_point() else x for x in rounded]
                given = getattr(low, hook)(*rounded, contexts[0]).double()
                wanted = getattr(exact, hook)(*widened, contexts[1]).double()
                size = wanted.masked_fill(wanted.isinf(), 0.0).norm().clamp_min(1e-30)
                off = torch.where(given == wanted, 0.0, given - wanted).norm() / size
                worst[hook] = max(worst.get(hook, 0.0), off.item())
    if not any(measured.values()):
        return "", "", "it has no hook that computes"
    wrong = [over(measured[name], f"more than rounding in {name}", limit) for name, limit in PRECISIONS.items()]
    figures = "; ".join(f"{name}: {shown(worst)}" for name, worst in measured.items())
    return "within rounding", figures, "; ".join(filter(None, wrong))


def _handed(encoding: Encoding, hook: str, at: Tensor, own: int, handed: int) -> Tensor:
    """What a hook gives when handed positions (S,) divided by `handed`, in a pass whose own are divided by `own`."""
    context = hook_context(encoding, at, queries=len(at))
    mine = context.key_positions
    context.key_positions = context.query_positions = mine.div(own, rounding_mode="floor")
    x, first = _arguments(encoding, hook, context)
    given = mine.div(handed, rounding_mode="floor")
    for positions in (first, given):  # the pass's own come first: what they leave behind may serve no others
        if context.generator is not None:
            context.generator.manual_seed(0)
        out: Tensor = getattr(encoding, hook)(x, positions, context)
    return out


@torch.no_grad()
def positions(subject: Subject) -> Outcome:
    """Hooks that take positions read those that they are handed, and not the pass's own in their place."""
    changed, ignored, free = dict[str, float](), list[str](), list[str]()
    for stack, _, encoding in subject.models():
        at = subject.places_of(subject.length)
        for part, hook in product(parts_of(encoding), ("embed", "rotate_query", "rotate_key")):
            if not part.overrides(hook):
                continue
            name, plain = f"{stack} {hook}", _handed(part, hook, at, own=1, handed=1)
            changed[name] = apart(plain, _handed(part, hook, at, own=1, handed=4))
            if not changed[name]:
                moved = apart(plain, _handed(part, hook, at, own=4, handed=4))
                (ignored if moved else free).append(name)
    if not changed:
        return "", "", "no hook of it takes positions"
    note = f"; no position enters, handed or the pass's own: {', '.join(free)}" if free else ""
    why = f"positions handed are ignored, the pass's own are used ({', '.join(ignored)})" if ignored else ""
    return "those handed", f"a quarter of them changes {shown(changed)}{note}", why
