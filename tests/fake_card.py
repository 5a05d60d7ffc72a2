"""A GPU's rules without a GPU: tensors have shape, dtype and device alone, under CUDA's own autocast.

It needs a torch that is built for CUDA, and neither card nor driver. Found are dtypes and devices that are mixed, and
whatever makes the host wait for the card. Not found: numbers, kernels that do not fit, and torch's own backward
formulas, whose engine asks for a driver. The project's own autograd functions are called backward by hand.
"""

from __future__ import annotations

import logging
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
)
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map

WAITS = ("_local_scalar_dense", "nonzero", "unique", "masked_select", "_assert_async", "repeat_interleave.Tensor")
"""Operations whose answer the host must have before it goes on: their size or value decides what comes next."""
UNKNOWN = (DataDependentOutputException, DynamicOutputShapeException)
"""Raised where a value would be read that nobody has."""


def place(frames: list[Any]) -> str:
    """The innermost line of posenc's own: `training/loop.py:215`."""
    for frame in reversed(frames):
        if "/posenc/" in frame.filename and "site-packages" not in frame.filename:
            return f"{frame.filename.rsplit('/posenc/', 1)[1]}:{frame.lineno}"
    return "?"


def place_of(error: BaseException) -> str:
    """Where in posenc an error came from."""
    return place(list(traceback.extract_tb(error.__traceback__)))


class Watch(TorchDispatchMode):
    """Notes each operation that makes the host wait for the card, with its place.

    A copy between host and card waits unless its end on the host is pinned and it was asked not to wait.
    """

    supports_higher_order_operators = True

    def __init__(self, mode: FakeTensorMode) -> None:
        super().__init__()
        self.mode = mode
        self.waits: Counter[str] = Counter()

    def note(self, what: str) -> None:
        self.waits[f"{what} at {place(list(traceback.extract_stack()))}"] += 1

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = str(func).removeprefix("aten.")
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        on_card = any(tensor.device.type == "cuda" for tensor in tensors)
        if name.startswith("_to_copy"):
            to = torch.device(kwargs.get("device") or args[0].device).type
            self._copied(args[0], args[0].device.type, to, bool(kwargs.get("non_blocking")))
        elif name.startswith("copy_"):
            source, waits_not = args[1], kwargs.get("non_blocking", len(args) > 2 and args[2])
            self._copied(source, source.device.type, args[0].device.type, bool(waits_not))
        elif on_card and name.startswith(WAITS):
            self.note(name)
        elif on_card and name.startswith("index") and any(t.dtype in (torch.bool, torch.uint8) for t in _indices(args)):
            self.note("index by a mask")
        args, kwargs = tree_map(self._fake, (args, kwargs))
        return func(*args, **kwargs)

    def _fake(self, one: Any) -> Any:
        """A batch's tensors are real ones, since a thread has no modes: of one that is copied, no value is kept."""
        real = isinstance(one, Tensor) and not isinstance(one, FakeTensor | nn.Parameter)
        return self.mode.from_tensor(one) if real else one

    def _copied(self, source: Tensor, home: str, to: str, waits_not: bool) -> None:
        if home == "cuda" and to == "cpu":
            self.note("copy to the CPU")
        elif home == "cpu" and to == "cuda" and not (waits_not and getattr(source, "pinned", False)):
            self.note("copy from the CPU's pageable memory" if waits_not else "copy from the CPU that is waited for")


def _indices(args: Any) -> list[Tensor]:
    given = args[1] if len(args) > 1 and isinstance(args[1], list | tuple) else ()
    return [one for one in given if isinstance(one, Tensor)]


class _Ctx(SimpleNamespace):
    """In place of autograd's context."""

    def save_for_backward(self, *tensors: Any) -> None:
        self.saved_tensors = tensors

    def mark_dirty(self, *tensors: Any) -> None: ...

    mark_non_differentiable = save_for_forward = mark_dirty

    def set_materialize_grads(self, value: bool) -> None: ...


def _there_and_back(cls: Any, *args: Any) -> Any:
    """In place of Function.apply: forward, and its own backward, within autocast too."""
    ctx = _Ctx(needs_input_grad=tuple(isinstance(a, Tensor) and a.is_floating_point() for a in args))
    with torch.no_grad():
        if cls.setup_context is torch.autograd.Function.setup_context:
            out = cls.forward(ctx, *args)
        else:
            out = cls.forward(*args)
            cls.setup_context(ctx, args, out)
        outs = out if isinstance(out, tuple) else (out,)
        with torch.autocast("cuda", torch.bfloat16):  # wherever `backward` may be asked for
            cls.backward(ctx, *(torch.empty_like(one) if isinstance(one, Tensor) else None for one in outs))
    return out


def on_card(module: nn.Module) -> nn.Module:
    """As `module.to("cuda")`, which cannot swap fake tensors in place."""
    for part in module.modules():
        for name, value in list(part._parameters.items()):
            if value is not None:
                part._parameters[name] = nn.Parameter(value.detach().cuda(), value.requires_grad)
        for name, value in list(part._buffers.items()):
            if value is not None:
                part._buffers[name] = value.cuda()
    return module


def _pinned(self: Tensor, *device: Any) -> Tensor:
    made = self.clone()
    made.pinned = True  # type: ignore[attr-defined]
    return made


def pretend(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let torch answer as if a card were there."""
    torch._C._ensureCUDADeviceGuardSet()  # one that does nothing
    monkeypatch.setattr(logging.root.manager, "disable", logging.ERROR)  # torch tells of each wrong dtype at length
    __import__("torch.distributed.tensor")  # names the class below in its annotations
    plain, to = torch.Generator, nn.Module.to

    class Generator(plain):  # type: ignore[misc, valid-type]
        def __new__(cls, device: Any = "cpu") -> Any:
            return plain("cpu")  # the card's own asks for a driver

    for name, answer in {
        "is_available": True, "is_bf16_supported": True, "current_device": 0, "device_count": 1, "set_device": None,
        "get_device_capability": (9, 0), "get_device_name": "no card", "synchronize": None, "manual_seed_all": None,
        "manual_seed": None, "reset_peak_memory_stats": None, "is_current_stream_capturing": False,
    }.items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, lambda *a, answer=answer, **k: answer)
    monkeypatch.setattr(torch, "Generator", Generator)
    monkeypatch.setattr(torch, "compile", lambda f=None, **k: f if f is not None else lambda g: g)  # as it reads
    monkeypatch.setattr(nn.Module, "to", lambda s, d, *a, **k: on_card(s) if "cuda" in str(d) else to(s, d, *a, **k))
    monkeypatch.setattr(torch.autograd.Function, "apply", classmethod(_there_and_back))
    monkeypatch.setattr(Tensor, "pin_memory", _pinned)


def reads(monkeypatch: pytest.MonkeyPatch, watch: Watch, truth: bool = True) -> None:
    """Let what is read back from the card be noted, and answered with something of its kind; `truth` where it is asked
    whether something is so."""
    answers: dict[str, Any] = {
        "item": lambda x: 1.0, "__float__": lambda x: 1.0, "__int__": lambda x: 1, "__bool__": lambda x: truth,
        "__index__": lambda x: 1, "tolist": lambda x: np.ones(tuple(x.shape)).tolist(),
    }  # fmt: skip
    for name, answer in answers.items():
        real = getattr(Tensor, name)

        def read(self: Tensor, *given: Any, name: str = name, answer: Any = answer, real: Any = real) -> Any:
            if self.device.type != "cuda":
                return real(self, *given)
            watch.note(name.strip("_"))
            return answer(self)

        monkeypatch.setattr(FakeTensor if name == "tolist" else Tensor, name, read)  # it has one of its own


def scores(monkeypatch: pytest.MonkeyPatch, watch: Watch) -> None:
    """As `reads`, and what came to the CPU may be looked at as an array: of zeros, as nobody has its values."""
    reads(monkeypatch, watch)
    dtypes = {torch.float64: np.float64, torch.float32: np.float32, torch.int64: np.int64, torch.bool: np.bool_}
    plain = Tensor.numpy

    def numpy(self: Tensor, *given: Any, **more: Any) -> Any:
        if not isinstance(self, FakeTensor):
            return plain(self, *given, **more)
        assert self.device.type == "cpu", "an array of what lies on the card"
        return np.zeros(tuple(self.shape), dtypes[self.dtype])

    monkeypatch.setattr(Tensor, "numpy", numpy)


@contextmanager
def fakes() -> Iterator[FakeTensorMode]:
    """Tensors made inside have no memory; the CPU's real ones may be mixed in."""
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        yield mode


def outside(function: Any) -> Any:
    """A function whose tensors are real, as those of a thread are, where fakes are about."""

    def run(*given: Any, **more: Any) -> Any:
        with _disable_current_modes():
            return function(*given, **more)

    return run
