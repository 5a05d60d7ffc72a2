"""What an encoding says of itself: what it is, which stacks it serves, whether it is relative and tells order."""

from __future__ import annotations

import torch
from torch import Tensor

from posenc.api import registry
from posenc.api.composite import Composite
from posenc.api.encoding import Context, Encoding
from posenc.properties.subject import SAME, Outcome, Subject, apart, over, parts_of, shown, side_of

SHIFT, FAR = 37, 700


def loads(subject: Subject) -> Outcome:
    """It loads, and one can be made for every stack."""
    about, options = registry.describe(subject.encoding), []
    for spec in registry.parse(subject.encoding):
        declared = registry.options_of(registry.load(spec.name)).values()
        options += [f"{spec.name}({', '.join(f'{one.name}={one.default!r}' for one in declared)})"] if declared else []
    measured = f"from {about['package']}; options: {' + '.join(options) or 'none'}"
    wrong = "; ".join(f"{stack}: {error}" for stack, error in subject.broken.items())
    return f"{about['name']}, version {about['version']}", measured, wrong


def attention(subject: Subject) -> Outcome:
    """The stacks that it can serve, and why not the others."""
    serves = ", ".join(subject.served) or "none"
    measured = f"serves {serves}" + "".join(f"; {stack}: {reason}" for stack, reason in subject.refused.items())
    silent = [f"no reason for {stack}" for stack, reason in subject.refused.items() if not reason.strip()]
    return serves, measured, ", ".join(silent) if subject.served else "it serves no stack at all"


class _Shifted(Encoding):
    relative, linear_form, shift, axes = True, "as_is", SHIFT, None

    def positions(self, context: Context) -> Tensor:
        bare = super().positions(context)
        # Each axis by another amount, so that nothing that they have in common hides a shift.
        return bare + self.shift * torch.arange(1, bare.shape[-1] + 1)


def _room(encoding: Encoding, subject: Subject) -> int:
    """How far the first axis can be shifted, if all are as long, in an encoding of limited length."""
    if subject.axes == 1:
        return (encoding.max_length or 0) - subject.length
    side = side_of((encoding.max_length or 0) + 1, subject.axes) - 1
    return (side - 1 - int(subject.places_of(subject.length).max())) // subject.axes


def translation(subject: Subject) -> Outcome:
    """Shifting all positions, or each coordinate, by a constant changes nothing, where and only where it says so."""
    measured, drawn, relative = dict[str, float](), dict[str, float](), False
    places, several = subject.places_of(subject.length), subject.axes > 1
    room = (int(places.max()) + 1 + subject.axes * SHIFT) ** subject.axes if several else subject.length + SHIFT
    for stack, model, encoding in subject.models(room=room):
        if encoding.overrides("positions"):
            return "", "", "it sets positions itself"
        relative, shifted = encoding.relative, _Shifted(encoding.stack)
        parts = parts_of(encoding)  # before it is composed with what shifts it
        bare = subject.run(model, subject.tokens(), **({"coordinates": places[None]} if several else {}))
        model.stacks[0][1].encoding = Composite(encoding.stack, [encoding, shifted])
        difference, far = 0.0, FAR if encoding.max_length is None else _room(encoding, subject)
        if far < 1:
            return "", "", "not measured: its table of coordinates has no room for a shift"
        # One that says that it is not relative may be so up to a threshold: FIRE's is 512.
        for shift in (SHIFT,) if relative else (SHIFT, FAR):
            shifted.shift = min(shift, far)
            # The tokens stand behind `shift` masked ones too: an encoding that counts for itself is shifted as well.
            difference = apart(subject.padded(model, subject.tokens(), shifted.shift, 0, places), bare)
            if difference > SAME:
                break
        # Inside a Performer's features a rotation is relative in the mean over random features, not in one draw.
        inside = "performer" in stack and {"inside", "wider"} & {part.linear_form for part in parts}
        (drawn if inside else measured)[stack] = difference
    note = f"not judged, as features are random: {shown(drawn)}" if drawn else ""
    if not measured:
        return "", "", note
    found = not over(measured, "far")
    wrong = "" if found == relative else f"it declares relative={relative}, and is {'' if found else 'not '}relative"
    return f"relative: {relative}", "; ".join(filter(None, (shown(measured), note))), wrong


def order(subject: Subject) -> Outcome:
    """Outputs of a bidirectional model change when its tokens change places, where and only where it declares so."""
    tokens, measured, tells = subject.tokens(), {}, False
    places = torch.randperm(subject.length, generator=torch.Generator().manual_seed(subject.seed))
    for stack, model, encoding in subject.models(causal=False):
        tells = encoding.tells_order
        measured[stack] = apart(subject.run(model, tokens[:, places]), subject.run(model, tokens)[:, places])
    if not measured:
        return "", "", "it serves no bidirectional stack"
    wrong = any((difference > SAME) != tells for difference in measured.values())
    why = f"it declares tells_order={tells}, and that is not so" if wrong else ""
    return f"tells order: {tells}", shown(measured), why
