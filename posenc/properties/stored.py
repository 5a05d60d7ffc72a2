"""What is stored of an encoding: its parameters, saved and read into a fresh model, give the same again."""

from __future__ import annotations

import io

import torch

from posenc.properties.subject import Outcome, Subject, apart, over, shown


def state(subject: Subject) -> Outcome:
    """A model whose weights were saved and read into one of another seed answers bit for bit as before."""
    measured, wrong = dict[str, float](), list[str]()
    for (stack, model, _), (_, other, _) in zip(subject.models(), subject.models(), strict=True):
        file = io.BytesIO()
        torch.save(model.state_dict(), file)
        file.seek(0)
        other.initialise(subject.seed + 1).double().eval()
        found = other.load_state_dict(torch.load(file, weights_only=True), strict=False)
        wrong += [f"{stack}: {name}" for name in (*found.missing_keys, *found.unexpected_keys)]
        measured[stack] = apart(subject.run(other, subject.tokens()), subject.run(model, subject.tokens()))
    complaint = over(measured, "what was saved does not give the same again", 0.0)
    if wrong:
        complaint = f"saved and read names differ: {', '.join(wrong)}"
    return "the same", shown(measured), complaint
