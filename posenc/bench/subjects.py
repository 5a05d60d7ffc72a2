"""What is timed: models that take the same tokens, and one pass over them, forward alone or forward and backward."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from posenc.backbone.config import BackboneConfig
from posenc.backbone.cost import backend_taken
from posenc.backbone.transformer import Transformer
from posenc.bench.bare import BareDecoder
from posenc.bench.peers import PEERS
from posenc.bench.shape import Shape
from posenc.common.errors import NotPossibleError, PluginError
from posenc.properties.subject import axes_of, grid, side_of

PASSES = ("forward", "step")
"""`step` is forward and backward; no optimiser."""


@dataclass(frozen=True)
class Subject:
    """One model to be timed.

    Attributes:
        name: posenc, bare decoder, or a library. backend: of attention, as far as it is posenc's to say.
        reason: why it is not timed, where it is not: "not installed", or what is not possible.
        axes: coordinates of a position that it reads: of more than one, its tokens stand on a grid.
    """

    name: str
    encoding: str
    attention: str
    causal: bool
    backend: str | None
    build: Callable[[Shape], nn.Module] | None = field(repr=False)
    reason: str | None = None
    axes: int = 1

    @property
    def is_peer(self) -> bool:
        """Whether it is another library's: run as its users run it, and never compiled."""
        return self.name != "posenc" and not self.name.startswith("bare")

    @property
    def key(self) -> str:
        return f"{self.name}/{self.attention}/{self.encoding}{'' if self.causal else '/both ways'}"

    @property
    def label(self) -> str:
        return self.name if self.causal or "encoder" in self.name else f"{self.name}, both ways"


class OnGrid(Transformer):
    """A model whose tokens stand in reading order on a square, or a cube, that just holds a row."""

    def __init__(self, config: BackboneConfig, encoding: str, length: int, backend: str, axes: int) -> None:
        super().__init__(config, encoding, length, backend, axes)
        self.register_buffer("places", grid(length, axes, side_of(length, axes))[None], persistent=False)

    def hidden(self, tokens: Tensor, **given: Any) -> Tensor:
        return super().hidden(tokens, **{"coordinates": self.get_buffer("places"), **given})

    def forward(self, tokens: Tensor) -> Tensor:  # type: ignore[override]
        return self.logits(self.hidden(tokens))


def _own(encoding: str, attention: str, causal: bool, backend: str, device: str, shape: Shape, kind: str) -> Subject:
    config = shape.backbone(attention, causal)
    try:
        axes = axes_of(encoding, shape.length)
        taken = backend_taken(config, encoding, shape.length, backend, device, kind == "step", axes=axes)
    except (NotPossibleError, PluginError) as error:
        return Subject("posenc", encoding, attention, causal, backend, None, str(error))

    def build(shape: Shape) -> nn.Module:
        shared = (shape.backbone(attention, causal), encoding, shape.length, backend)
        return (Transformer(*shared) if axes == 1 else OnGrid(*shared, axes)).initialise(0)

    return Subject("posenc", encoding, attention, causal, taken, build, axes=axes)


def _bare(shape: Shape) -> nn.Module:
    return BareDecoder(
        layers=shape.layers,
        width=shape.width,
        heads=shape.heads,
        feedforward=shape.feedforward,
        vocabulary=shape.vocabulary,
        causal=shape.causal,
    )


def subjects(
    encodings: Sequence[str], attentions: Sequence[str], backend: str, device: str, shape: Shape, kind: str, peers: bool
) -> list[Subject]:
    """All that one comparison times in passes of one kind; `none` of each attention, the first, divides the others.

    Beside a causal Performer's `none` stands the one that reads both ways. Peers are those of the encodings asked for;
    where an encoder is timed, those that read both ways.
    """
    found = []
    for attention in attentions:
        for encoding in dict.fromkeys(("none", *encodings)):
            found.append(_own(encoding, attention, shape.causal, backend, device, shape, kind))
        if attention == "softmax":
            name = "bare decoder" if shape.causal else "bare encoder"
            found.append(Subject(name, "none", attention, shape.causal, "sdpa", _bare))
        elif shape.causal:
            found.append(_own("none", attention, False, backend, device, shape, kind))
        for peer in PEERS if peers else []:
            wanted = peer.encoding in encodings or peer.encoding == "none"
            if wanted and peer.attention == attention and (shape.causal or not peer.causal):
                build, reason = (peer.build, None) if peer.installed else (None, "not installed")
                found.append(Subject(peer.package, peer.encoding, peer.attention, peer.causal, None, build, reason))
    return found


@dataclass(frozen=True)
class Pass:
    """One subject's work: a model on a device, its tokens, and in what precision."""

    model: nn.Module
    tokens: Tensor
    kind: str
    bfloat16: bool
    graphs: bool = False

    def __call__(self) -> None:
        device = self.tokens.device.type
        if self.kind == "forward":
            with torch.inference_mode(), torch.autocast(device, torch.bfloat16, enabled=self.bfloat16):
                self.model.eval()(self.tokens)
            return
        self.model.zero_grad(set_to_none=True)
        if self.graphs:
            torch.compiler.cudagraph_mark_step_begin()
        with torch.autocast(device, torch.bfloat16, enabled=self.bfloat16):
            loss = self.model.train()(self.tokens).float().square().mean()
        loss.backward()


def make_pass(subject: Subject, shape: Shape, kind: str, device: str, dtype: str, compile: str = "none") -> Pass:
    """The subject's model with its tokens, ready to run; a step compiled as `runtime.compile` has it, but for peers."""
    assert subject.build is not None
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(shape.vocabulary, (shape.rows, shape.length), generator=generator)
    model = subject.build(shape).to(device)
    if compile != "none" and kind == "step" and not subject.is_peer:
        assert isinstance(model, Transformer | BareDecoder)
        model.compile_training(compile == "cudagraphs")
    return Pass(model, tokens.to(device), kind, dtype == "bfloat16", compile == "cudagraphs")
