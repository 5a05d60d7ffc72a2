"""Randomness: global states that no encoding may touch, and passes that give the same again."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from posenc.api import registry
from posenc.backbone.transformer import Transformer
from posenc.common.seeds import derive
from posenc.properties.subject import Outcome, Subject


def _numpy() -> Any:
    """NumPy's random module where something has loaded it: else nobody draws from it, and torch alone is needed."""
    return sys.modules.get("numpy.random")


def _states() -> dict[str, object]:
    """The global random states by whose they are, as something that can be compared."""
    found: dict[str, object] = {"torch": torch.get_rng_state().tolist(), "Python": random.getstate()}
    if (numpy := _numpy()) is not None:
        name, keys, *rest = numpy.get_state()
        found["NumPy"] = (name, keys.tobytes(), *rest)
    return found


@contextmanager
def left_alone() -> Iterator[None]:
    """Whatever draws from a global random state inside, or sets it, its caller finds it as it was."""
    own, numpy = random.getstate(), _numpy()
    drawn = numpy.get_state() if numpy else None
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(own)
        if numpy:
            numpy.set_state(drawn)


def _touched(action: Callable[[], object], seed: int) -> list[str]:
    """Whose global random state an action draws from, or sets."""
    action()  # what it imports is there from now on
    torch.manual_seed(seed)  # a state that no plug-in sets by itself, as it may set 0
    random.seed(seed)
    if (numpy := _numpy()) is not None:
        numpy.seed(seed % 2**32)
    before = _states()
    action()
    return [name for name, state in _states().items() if state != before[name]]


def _pass(subject: Subject, model: Transformer) -> list[Tensor]:
    """Outputs and gradients of a pass in training mode, at step 0."""
    model.train().begin_step(subject.seed, 0).zero_grad()
    out = subject.logits(model, subject.tokens())
    out.square().sum().backward()
    return [out.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]


def random_state(subject: Subject) -> Outcome:
    """Making it, initialising it, training and scoring leave torch's, NumPy's and Python's random states alone."""
    touched: dict[str, set[str]] = {}
    for (causal, kind), (_, model, _) in zip(subject.served.values(), subject.models(), strict=True):
        stack = subject.stack(causal, kind)

        def make(stack: Any = stack) -> None:
            registry.create(subject.encoding, stack).initialise(torch.Generator().manual_seed(subject.seed))

        def train(model: Transformer = model) -> None:
            _pass(subject, model)

        def score(model: Transformer = model) -> None:
            subject.run(model.eval(), subject.tokens())

        seed = derive(subject.seed, "watched") % 2**63
        for doing, action in {"making or initialising": make, "training": train, "scoring": score}.items():
            for whose in _touched(action, seed):
                touched.setdefault(whose, set()).add(doing)
    measured = "; ".join(f"{whose}'s drawn from in {' and '.join(sorted(touched[whose]))}" for whose in sorted(touched))
    return "left alone", measured or "untouched", "it must draw from the generators given" if touched else ""


def repeatable(subject: Subject) -> Outcome:
    """A pass at one step and seed gives the same again, in training, its gradients too, and in scoring."""
    wrong, stacks = [], []
    for stack, model, _ in subject.models():
        stacks.append(stack)
        passes = [_pass(subject, model) for _ in range(2)]
        if any(not torch.equal(one, other) for one, other in zip(*passes, strict=True)):
            wrong.append(f"{stack} in training")
        model.eval()
        if not torch.equal(*(subject.run(model, subject.tokens()) for _ in range(2))):
            wrong.append(f"{stack} in scoring")
    why = f"two passes differ: {', '.join(wrong)}" if wrong else ""
    return "the same", f"{len(stacks)} stacks, {len(wrong)} differences", why
