"""What an encoding does, measured on its own: small models in float64, and its hooks alone. Needs torch alone.

`posenc check ENCODING` is a view of this: does it do what it declares? Each measurement is one function, named
as its Finding; its docstring is the sentence that says what was measured. What fails inside a hook becomes a failed
Finding that names the hook. Parameters are moved off their start, so that what starts from zero is measured too.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from posenc import registry
from posenc.backbone.config import BackboneConfig
from posenc.backbone.layers import DecodingCache
from posenc.backbone.transformer import Transformer, is_positional
from posenc.encoding import Composite, Context, Encoding, prepare
from posenc.errors import NotPossibleError, PosencError
from posenc.guarded import HOOKS, HookError, ready
from posenc.seeds import derive

VOCABULARY, FEATURES = 32, 32
SAME = 1e-10
"""Float64 outputs, of a size near 1, that differ by no more than this are the same but for rounding."""
FAR, SHIFT = 100_000, 37
PRECISIONS = {"bfloat16": 2.0**-7, "float32": 1e-5}
"""How far what a hook gives may be off, relative to its norm. Angles built in float32 are off by 1e-3 at FAR."""

Outcome = tuple[str, str, str]
"""What is declared, what was measured, what is wrong. Nothing measured: it does not apply, and the last says why."""


Served = tuple[str, Transformer, Encoding]


@dataclass(frozen=True)
class Finding:
    """One property. `passed` is None where it does not apply; `why` says why not, or what is wrong."""

    name: str
    what: str
    declared: str
    measured: str
    passed: bool | None
    why: str = ""


class Bench:
    """One encoding, and the stacks that it can serve: name to (causal, kind of attention)."""

    def __init__(self, encoding: str, seed: int, length: int) -> None:
        self.encoding, self.seed, self.length = encoding, seed, length
        self.served: dict[str, tuple[bool, str]] = {}
        self.refused: dict[str, str] = {}
        self.broken: dict[str, str] = {}
        for causal, kind in product((True, False), ("softmax", "performer")):
            name = f"{'causal' if causal else 'bidirectional'} {kind}"
            try:
                made = registry.create(encoding, _config(causal, kind).stack(2 * length, causal=causal))
                if (reason := made.why_not(kind)) is not None:
                    self.refused[name] = reason
                    continue
                self.served[name] = (causal, kind)
                if made.max_length is not None:  # padding must find room too
                    self.length = min(self.length, made.max_length // 2)
            except NotPossibleError as error:
                self.refused[name] = str(error)
            except PosencError:  # a name or a value that the user wrote
                raise
            except Exception as error:
                self.broken[name] = f"{type(error).__name__}: {error}"

    def models(self, causal: bool | None = None, kind: str = "", room: int = 0) -> Iterator[Served]:
        """Name, float64 model and encoding of each stack served, or of those asked for; `room` is its max_length."""
        for name, (direction, attention) in self.served.items():
            if causal in (None, direction) and kind in ("", attention):
                model = Transformer(_config(direction, attention), self.encoding, room or 2 * self.length)
                ready(model.initialise(self.seed).encodings()[0], self.seed)
                yield name, model.double().eval(), model.encodings()[0]

    def tokens(self, length: int = 0) -> Tensor:
        """Random tokens (2,L)."""
        generator = torch.Generator().manual_seed(derive(self.seed, "tokens"))
        return torch.randint(VOCABULARY, (2, length or self.length), generator=generator)

    @torch.no_grad()
    def run(self, model: Transformer, tokens: Tensor, mask: Tensor | None = None, **more: Any) -> Tensor:
        """Hidden states (2,L,D), 0 at padding; random features and generators stand as at step 0."""
        out = model.begin_step(self.seed, 0).hidden(tokens, mask=mask, **more)
        if mask is not None:
            out = out.masked_fill(~mask[:, -out.shape[1] :, None], 0.0)
        if not out.isfinite().all():
            raise HookError("the model's output is not finite, though what each hook gave was")
        return out

    def padded(self, model: Transformer, left: int, right: int) -> Tensor:
        """What `run` gives at the tokens, with padding to their left and right."""
        row = nn.functional.pad(self.tokens(), (left, right), value=7)
        real = nn.functional.pad(torch.ones(self.length, dtype=torch.bool), (left, right))
        return self.run(model, row, real.expand(2, -1))[:, real]


def _config(causal: bool, kind: str) -> BackboneConfig:
    return BackboneConfig(
        form="decoder" if causal else "encoder", vocabulary=VOCABULARY, layers=2, width=64, heads=4, feedforward=64,
        attention="softmax" if kind == "softmax" else "performer", features=FEATURES, chunk=8,
    )  # fmt: skip


def _apart(one: Tensor, other: Tensor) -> float:
    return (one - other).abs().max().item()


def _shown(measured: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.1e}" if value else f"{name} 0" for name, value in measured.items())


def _over(measured: dict[str, float], complaint: str, limit: float = SAME) -> str:
    """The complaint, with the names of those over the limit; nothing where none is."""
    names = [name for name, value in measured.items() if not value <= limit]
    return f"{complaint} ({', '.join(names)})" if names else ""


def loads(bench: Bench) -> Outcome:
    """It loads, and one can be made for every stack."""
    about, options = registry.describe(bench.encoding), []
    for spec in registry.parse(bench.encoding):
        declared = registry.options_of(registry.load(spec.name)).values()
        options += [f"{spec.name}({', '.join(f'{one.name}={one.default!r}' for one in declared)})"] if declared else []
    measured = f"from {about['package']}; options: {' + '.join(options) or 'none'}"
    wrong = "; ".join(f"{stack}: {error}" for stack, error in bench.broken.items())
    return f"{about['name']}, version {about['version']}", measured, wrong


def attention(bench: Bench) -> Outcome:
    """The stacks that it can serve, and why not the others."""
    serves = ", ".join(bench.served) or "none"
    measured = f"serves {serves}" + "".join(f"; {stack}: {reason}" for stack, reason in bench.refused.items())
    silent = [f"no reason for {stack}" for stack, reason in bench.refused.items() if not reason.strip()]
    return serves, measured, ", ".join(silent) if bench.served else "it serves no stack at all"


def causality(bench: Bench) -> Outcome:
    """A changed token changes no earlier output, to the last bit; a row cut short keeps its outputs."""
    tokens, changed, cut, cached = bench.tokens(), dict[str, float](), dict[str, float](), True
    for stack, model, encoding in bench.models(causal=True):
        whole, cached, changed[stack] = bench.run(model, tokens), encoding.cached_decoding, 0.0
        for t in range(1, bench.length):
            other = tokens.clone()
            other[:, t] = (other[:, t] + 1) % VOCABULARY
            changed[stack] = max(changed[stack], _apart(bench.run(model, other)[:, :t], whole[:, :t]))
        ends = (1, bench.length // 2, bench.length - 1)
        cut[stack] = max(_apart(bench.run(model, tokens[:, :t]), whole[:, :t]) for t in ends)
    if not changed:
        return "", "", "it serves no causal stack"
    wrong = _over(changed, "later tokens reach earlier outputs", 0.0)
    if cached:  # one that declares no cached decoding may depend on how long the row is
        wrong = wrong or _over(cut, "how long the row is reaches earlier outputs")
    return "causal", f"token changed: {_shown(changed)}; row cut: {_shown(cut)}", wrong


def padding(bench: Bench) -> Outcome:
    """Padding, left or right, changes no output of a real token."""
    measured, pad = {}, max(1, bench.length // 4)
    for stack, model, _ in bench.models():
        bare = bench.run(model, bench.tokens())
        measured[f"{stack} left"] = _apart(bench.padded(model, pad, 0), bare)
        measured[f"{stack} right"] = _apart(bench.padded(model, 0, pad), bare)
    return "no effect", _shown(measured), _over(measured, "padding changes outputs")


def packed_rows(bench: Bench) -> Outcome:
    """Examples packed in one row give what each gives alone."""
    tokens, first, measured = bench.tokens(), bench.length // 3, {}
    segments = (torch.arange(bench.length) >= first).long().expand(2, -1)
    for stack, model, _ in bench.models(kind="softmax"):
        each = torch.cat((bench.run(model, tokens[:, :first]), bench.run(model, tokens[:, first:])), dim=1)
        measured[stack] = _apart(bench.run(model, tokens, segments=segments), each)
    if not measured:
        return "", "", "packed rows are built for softmax attention alone, which it does not serve"
    return "the same", _shown(measured), _over(measured, "packed examples are not as they are alone")


class _Shifted(Encoding):
    relative, linear_form, shift = True, "as_is", SHIFT

    def positions(self, context: Context) -> Tensor:
        return super().positions(context) + self.shift


def translation(bench: Bench) -> Outcome:
    """Shifting all positions by a constant changes nothing, where and only where it declares so."""
    measured, drawn, relative = dict[str, float](), dict[str, float](), False
    for stack, model, encoding in bench.models(room=bench.length + SHIFT):
        if encoding.overrides("positions"):
            return "", "", "it sets positions itself"
        relative, bare, shifted = encoding.relative, bench.run(model, bench.tokens()), _Shifted(encoding.stack)
        shifted.shift = SHIFT if encoding.max_length is None else min(SHIFT, encoding.max_length - bench.length)
        model.stacks[0][1].encoding = Composite(encoding.stack, [encoding, shifted])
        # The tokens stand behind `shift` masked ones too: an encoding that counts for itself is shifted as well.
        difference = _apart(bench.padded(model, shifted.shift, 0), bare)
        # Inside a Performer's features a rotation is relative in the mean over random features, not in one draw.
        (drawn if "performer" in stack and encoding.linear_form == "inside" else measured)[stack] = difference
    note = f"not judged, as features are random: {_shown(drawn)}" if drawn else ""
    if not measured:
        return "", "", note
    found = not _over(measured, "far")
    wrong = "" if found == relative else f"it declares relative={relative}, and is {'' if found else 'not '}relative"
    return f"relative: {relative}", "; ".join(filter(None, (_shown(measured), note))), wrong


def order(bench: Bench) -> Outcome:
    """Outputs of a bidirectional model change when its tokens change places, where and only where it declares so."""
    tokens, measured, tells = bench.tokens(), {}, False
    places = torch.randperm(bench.length, generator=torch.Generator().manual_seed(bench.seed))
    for stack, model, encoding in bench.models(causal=False):
        tells = encoding.tells_order
        measured[stack] = _apart(bench.run(model, tokens[:, places]), bench.run(model, tokens)[:, places])
    if not measured:
        return "", "", "it serves no bidirectional stack"
    wrong = any((difference > SAME) != tells for difference in measured.values())
    why = f"it declares tells_order={tells}, and that is not so" if wrong else ""
    return f"tells order: {tells}", _shown(measured), why


def _hook_context(encoding: Encoding, positions: Tensor, queries: int) -> Context:
    """For hooks called without a model: keys at these positions (S,), the last of them queries too."""
    generator, keys = torch.Generator().manual_seed(0), len(positions)
    context = Context(stack=encoding.stack, queries=queries, keys=keys, device=positions.device, generator=generator)
    own = encoding.overrides("positions")
    context.key_positions = encoding.positions(context) if own else positions[None, :, None]
    context.query_positions = context.key_positions[:, context.offset :]
    return context


def _arguments(encoding: Encoding, hook: str, context: Context) -> tuple[Tensor, ...]:
    """Random ones for a hook, in float64, but for the context."""
    stack, queries, keys = encoding.stack, context.queries, context.keys
    draw = partial(torch.randn, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    if hook == "embed":
        return draw(1, queries, stack.width), context.query_positions
    if hook == "distance_bias":
        return (torch.arange(1 - keys, 1 if stack.causal else keys),)
    if hook == "score_bias":
        return draw(1, stack.heads, queries, stack.head_width), draw(1, stack.heads, keys, stack.head_width)
    if hook == "mix_values":
        return (draw(1, stack.heads, queries, keys).softmax(dim=-1),)
    width = FEATURES if encoding.linear_form == "outside" else stack.head_width  # a Performer's features, or a head
    return draw(1, stack.heads, queries, width), context.query_positions


def norms(bench: Bench) -> Outcome:
    """Hooks on queries and keys leave their norms as they were, at positions from 0 to 100,000."""
    measured, keeps = {}, False
    for stack, _, encoding in bench.models():
        keeps, limit = encoding.keeps_norms, encoding.max_length
        at = torch.arange(0, FAR + 1, 50) if limit is None else torch.arange(limit)
        for hook in filter(encoding.overrides, ("rotate_query", "rotate_key")):
            context = _hook_context(encoding, at, queries=len(at))
            x, positions = _arguments(encoding, hook, context)
            ratio = getattr(encoding, hook)(x, positions, context).norm(dim=-1) / x.norm(dim=-1)
            measured[f"{stack} {hook}"] = _apart(ratio, torch.ones_like(ratio))
    if not measured:
        return "", "", "it leaves queries and keys alone"
    return f"keeps norms: {keeps}", _shown(measured), _over(measured, "norms change") if keeps else ""


def gradients(bench: Bench) -> Outcome:
    """Every positional parameter gets a gradient, finite and not zero."""
    tokens, counts, wrong = bench.tokens(), [], []
    for stack, model, encoding in bench.models():
        learnt = {name: p for name, p in encoding.named_parameters() if p.requires_grad}
        if not learnt:
            return "", "", "it has no parameters"
        loss = nn.functional.cross_entropy(model(tokens).flatten(0, 1), tokens.roll(1, 1).flatten())
        given = torch.autograd.grad(loss, list(learnt.values()), allow_unused=True)
        dead = [n for n, g in zip(learnt, given, strict=True) if g is None or not (g.isfinite().all() and g.any())]
        wrong += [f"{name} of {stack}" for name in dead]
        counts.append(f"{stack} {sum(parameter.numel() for parameter in learnt.values())}")
    complaint = f"no gradient, or none that is finite: {', '.join(wrong)}" if wrong else ""
    return "all learnt", f"parameters: {', '.join(counts)}", complaint


@torch.no_grad()
def low_precision(bench: Bench) -> Outcome:
    """Hooks given bf16 or float32, near position 100,000 or their last, are off from float64 by rounding alone."""
    measured: dict[str, dict[str, float]] = {name: {} for name in PRECISIONS}
    both = zip(bench.models(room=512), bench.models(room=512), strict=True)
    for (stack, _, low), (_, _, exact) in both:
        low.float()  # as under autocast: parameters in float32, activations lower
        limit = low.max_length or FAR
        at = torch.arange(max(0, limit - 512), limit)
        for hook in filter(low.overrides, HOOKS[1:] if "softmax" in stack else HOOKS[1:4]):
            for name, worst in measured.items():
                contexts = [_hook_context(encoding, at, queries=min(8, limit)) for encoding in (low, exact)]
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
    wrong = [_over(measured[name], f"more than rounding in {name}", limit) for name, limit in PRECISIONS.items()]
    figures = "; ".join(f"{name}: {_shown(worst)}" for name, worst in measured.items())
    return "within rounding", figures, "; ".join(filter(None, wrong))


def cached_decoding(bench: Bench) -> Outcome:
    """Decoding with cached keys, left padding too, gives what one pass over the whole gives."""
    tokens, mask = bench.tokens(), torch.ones(2, bench.length, dtype=torch.bool)
    first, cache = bench.length // 4, DecodingCache(2)
    mask[1, : first // 2] = False
    for stack, model, encoding in bench.models(causal=True, kind="softmax"):
        if not encoding.cached_decoding:
            with suppress(NotPossibleError):
                bench.run(model, tokens, cache=cache)
                return "no", "not refused", "it takes a cache that it declares it cannot use"
            return "no", "refused", ""
        ends = [first, *range(first + 1, bench.length, 2), bench.length]
        steps = [bench.run(model, tokens[:, cache.length : end], mask[:, :end], cache=cache) for end in ends]
        measured = {stack: _apart(torch.cat(steps, dim=1), bench.run(model, tokens, mask))}
        return "yes", _shown(measured), _over(measured, "cached decoding differs")
    return "", "", "it serves no causal softmax attention"


def random_state(bench: Bench) -> Outcome:
    """Making it, initialising it and training leave the global random state alone."""

    def state() -> tuple[object, object]:
        return torch.get_rng_state().tolist(), random.getstate()

    touched = set()
    for (causal, kind), (_, model, _) in zip(bench.served.values(), bench.models(), strict=True):
        before, made = state(), registry.create(bench.encoding, _config(causal, kind).stack(24, causal=causal))
        made.initialise(torch.Generator().manual_seed(bench.seed))
        touched |= {"making or initialising"} if state() != before else set()
        before, _ = state(), model.train()(bench.tokens()).sum().backward()
        touched |= {"training"} if state() != before else set()
    measured = f"drawn from in {' and '.join(sorted(touched))}" if touched else "untouched"
    return "left alone", measured, "it must draw from the generators given" if touched else ""


def start(bench: Bench) -> Outcome:
    """Non-positional parameters start bit for bit as those of `none`, and a seed gives the same start again."""
    wrong, count = set[str](), 0
    plains = Bench("none", bench.seed, bench.length)
    plains.served = bench.served
    for models in zip(bench.models(), bench.models(), plains.models(), strict=True):
        first, again, plain = ({**dict(m.named_parameters()), **dict(m.named_buffers())} for _, m, _ in models)
        shared = {name for name in (*first, *plain) if not is_positional(name)}
        same = {name for name in first.keys() & plain.keys() if torch.equal(first[name], plain[name])}
        twice = {f"{name} (a second time)" for name in first if not torch.equal(first[name], again[name])}
        wrong, count = wrong | (shared - same) | twice, count + len(shared)
    why = f"not the same: {', '.join(sorted(wrong))}" if wrong else ""
    return "the same", f"{count} tensors compared, {len(wrong)} differ", why


def lengths(bench: Bench) -> Outcome:
    """It works at 4 times the length or at its largest, refuses what is longer, and keeps nothing between lengths."""
    wrong, works, limit = [], 0, None
    for stack, model, encoding in bench.models():
        short, limit, works = bench.run(model, bench.tokens()), encoding.max_length, 4 * bench.length
        if limit is not None:
            works = min(works, limit)
            with suppress(NotPossibleError):
                prepare(encoding, Context(stack=encoding.stack, queries=1, keys=limit + 1, device=short.device))
                wrong.append(f"{stack}: {limit + 1} tokens are not refused")
        bench.run(model, bench.tokens(works))
        if _apart(bench.run(model, bench.tokens()), short):
            wrong.append(f"{stack}: the same row gives something else after a longer one")
    refused = f", {limit + 1} is refused" if limit is not None and not wrong else ""
    return f"largest length: {limit or 'none'}", f"{works} works{refused}", "; ".join(wrong)


MEASUREMENTS = (
    loads, attention, causality, padding, packed_rows, translation, order, norms, gradients, low_precision,
    cached_decoding, random_state, start, lengths,
)  # fmt: skip


def measure(encoding: str, *, seed: int = 0, length: int = 24) -> list[Finding]:
    """Hold an encoding, as written (`rope(base=500000)`, `sinusoidal+rope`), against what it declares.

    Raises:
        PosencError: no such encoding or option, or its package cannot be loaded.
    """
    findings = []
    with torch.random.fork_rng(devices=[]):
        bench = Bench(encoding, seed, length)
        for measurement in MEASUREMENTS:
            name, what = measurement.__name__.replace("_", " "), measurement.__doc__ or ""
            try:
                can = bench.served or measurement in (loads, attention)
                declared, measured, wrong = measurement(bench) if can else ("", "", "it serves no stack")
                findings.append(Finding(name, what, declared, measured, not wrong if measured else None, wrong))
            except Exception as error:  # a plug-in may fail in any way: the other measurements go on
                text = str(error) if isinstance(error, HookError) else f"{type(error).__name__}: {error}"
                findings.append(Finding(name, what, "", text, False, "it could not be measured"))
    return findings


def passed(findings: list[Finding]) -> bool:
    """Whether nothing failed."""
    return all(finding.passed is not False for finding in findings)
