"""Whether a compiler sees an encoding whole, and what the largest tensor is that a pass of it makes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from posenc.api.blame import blamed, said
from posenc.backbone.transformer import Transformer
from posenc.properties.subject import Outcome, Subject, apart, config, over, shown

TRACED = 12
"""Tokens of the row that a compiler sees: in a Performer a whole chunk and a part of one."""
SHORT = 128
"""Tokens of the shorter of the two rows whose tensors are counted."""


def graph(subject: Subject) -> Outcome:
    """A pass is one graph to torch.compile, without a break, and gives the same."""
    measured, wrong, tokens = dict[str, float](), list[str](), subject.tokens()[:, :TRACED]
    for stack, (causal, kind) in subject.served.items():
        # As it is, without what tells where a hook's answer is not finite: that looks at numbers, which no graph can.
        model = Transformer(config(causal, kind), subject.encoding, subject.trained, axes=subject.axes)
        model = model.initialise(subject.seed).double().eval()
        plain = subject.run(model, tokens)
        torch._dynamo.reset()
        try:
            with torch.no_grad():
                whole = torch.compile(model.hidden, fullgraph=True, dynamic=False, backend="eager")
                measured[stack] = apart(whole(tokens, **subject.given(model, tokens.shape[1])), plain)
        except Exception as error:  # whatever a compiler cannot do
            wrong.append(f"{stack}: {(blamed(error) or said(error)).splitlines()[0]}")
        finally:
            torch._dynamo.reset()
    if wrong:
        return "one graph", shown(measured) or "none", f"it cannot be one graph ({'; '.join(wrong)})"
    return "one graph", shown(measured), over(measured, "compiled, it gives something else")


class _Largest(TorchDispatchMode):
    """The largest tensor that any operation gives, in numbers that lie in memory (a view has none)."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for one in out if isinstance(out, tuple | list) else (out,):
            if isinstance(one, Tensor):
                self.numbers = max(self.numbers, one.untyped_storage().nbytes() // one.element_size())
        return out


def memory(subject: Subject) -> Outcome:
    """Nothing as large as a vector of the model's width for each pair of tokens; how its largest tensor grows."""
    per_pair, said_of = dict[str, float](), list[str]()
    for stack, model, encoding in subject.models(room=2 * SHORT):
        if encoding.max_length is not None and encoding.max_length < 2 * SHORT:
            return "", "", f"its rows have at most {encoding.max_length} tokens"
        found = []
        for length in (SHORT, 2 * SHORT):
            tokens = subject.tokens(length)[:1]
            with _Largest() as largest:
                subject.run(model, tokens)
            found.append(largest.numbers)
        per_pair[stack] = found[1] / (2 * SHORT) ** 2
        said_of.append(f"{stack} {found[1]:,}, {found[1] / found[0]:.1f} times that of half the length")
    limit = model.config.width - 1
    wrong = over(per_pair, f"{model.config.width} numbers or more for each pair of tokens", limit)
    return f"under {limit + 1} a pair", f"largest tensor at {2 * SHORT} tokens: {'; '.join(said_of)}", wrong
