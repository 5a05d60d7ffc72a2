"""Without a card: every encoding, attention, form and kind of rows under CUDA's autocast; whole steps never wait.

Run by `nox -s fakecuda`, which installs a torch built for CUDA; see tests/fake_card.py for what this can find.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import fake_card
import pytest
import torch
from torch import Tensor

from posenc.api import registry
from posenc.attention.interface import DecodingCache
from posenc.attention.softmax import blocks
from posenc.attention.softmax.kernel import BACKENDS
from posenc.backbone.config import BackboneConfig
from posenc.backbone.transformer import Transformer
from posenc.common.errors import NotPossibleError
from posenc.encodings.permuteformer import PermuteFormer
from posenc.objectives import factory
from posenc.objectives.masked_lm import MaskedLM
from posenc.plan.plan import Selection, find_suite, make
from posenc.training.batches import Batches
from posenc.training.cell_terms import CellTerms
from posenc.training.group import Group
from posenc.training.loop import Loop
from posenc.training.runtime import precision

pytestmark = [
    pytest.mark.fakecuda,
    pytest.mark.skipif(torch.version.cuda is None, reason="this torch is built for the CPU alone"),
]
L, S = 272, 40
"""Tokens of a row: more than two of the chunks that linear attention has on a GPU."""
ENCODINGS = [name for name in registry.BUILT_IN if registry.load(name).axes in (None, 1)] + ["t5+rope", "shaw+rope"]
ROWS = {"decoder": ("plain", "padded", "packed", "cached"), "encoder": ("plain", "padded", "packed"),
        "encoder-decoder": ("plain", "padded", "packed", "cached")}  # fmt: skip


@pytest.fixture(autouse=True)
def card(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    fake_card.pretend(monkeypatch)
    # Made with the model, on the CPU, from values, which fake tensors do not have.
    monkeypatch.setattr(
        PermuteFormer, "_cycles", lambda self, features: torch.zeros(4, self.stack.heads, features, dtype=torch.long)
    )
    deterministic = torch.are_deterministic_algorithms_enabled()
    yield
    torch.use_deterministic_algorithms(deterministic)


def forward(model: Transformer, rows: str) -> Tensor:
    """Hidden states of two rows; of an encoder-decoder the decoder's, which has read them."""
    form = model.config.form
    tokens, sources = (torch.zeros(2, size, dtype=torch.long, device="cuda") for size in (L, S))
    whole = {"mask": torch.ones_like(tokens, dtype=torch.bool)} if rows == "padded" else {}
    given: dict[str, Tensor] = {"segments": torch.zeros_like(tokens)} if rows == "packed" else whole
    if form != "encoder-decoder":
        if rows != "cached":
            return model.hidden(tokens, **given)
        cache = DecodingCache(model.config.layers)
        model.hidden(tokens[:, :5], cache=cache)
        return model.hidden(tokens[:, 5:6], cache=cache)
    of_source = {name: torch.ones_like(sources).to(value.dtype) for name, value in given.items()}
    memory = model.hidden(sources, **of_source)
    more = {f"memory_{name}": value for name, value in of_source.items()}
    if rows != "cached":
        return model.decode(tokens, memory, **given, **more)
    cache = DecodingCache(model.config.layers)
    model.decode(tokens[:, :5], memory, cache=cache)
    return model.decode(tokens[:, 5:6], memory, cache=cache)


def found_in(encoding: str, attention: str, form: Any, backend: str, rows: str) -> str | None:
    """What a card would refuse, or that the host waits; None where nothing is, or where posenc refuses in a line."""
    config = BackboneConfig(
        form=form, layers=1, width=64, heads=4, feedforward=64, features=32, attention=attention, chunk=16
    )
    case = f"{encoding} {attention} {form} {rows} {backend}"
    try:
        with fake_card.fakes() as mode, fake_card.Watch(mode) as watch:
            try:
                model = fake_card.on_card(Transformer(config, encoding, L, backend).initialise(0))
                model.begin_step(0, 1)
                watch.waits.clear()
                training = rows != "cached"
                # Flex as it reads asks autograd's engine; cached rows are scored, without gradients.
                gradients = torch.set_grad_enabled(training and backend != "flex")
                with gradients, torch.autocast("cuda", torch.bfloat16):
                    out = forward(model.train(training), rows)
                if out.device.type != "cuda":
                    return f"{case}: what comes out is on {out.device}"
            except NotPossibleError:
                return None
    except fake_card.UNKNOWN as error:
        return f"{case}: the host waits: {error} at {fake_card.place_of(error)}"
    except Exception as error:
        return f"{case}: {type(error).__name__}: {str(error).strip()[:150]} at {fake_card.place_of(error)}"
    return f"{case}: {dict(watch.waits)}" if watch.waits else None


def asked(encoding: str) -> list[str]:
    """What is found in all cases of an encoding."""
    found = []
    for form, attention in itertools.product(ROWS, ("softmax", "performer")):
        backends = [one for one in BACKENDS if one not in ("auto", "xformers")] if attention == "softmax" else ["auto"]
        for backend, rows in itertools.product(backends, ROWS[form]):
            found.append(found_in(encoding, attention, form, backend, rows))
    return [one for one in found if one]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_nothing_mixes_dtypes_or_devices_or_waits(encoding: str) -> None:
    found = asked(encoding)
    assert not found, f"{len(found)} cases:\n" + "\n".join(found[:10])


PLANES = [name for name in registry.BUILT_IN if registry.load(name).axes not in (None, 1)]


@pytest.mark.parametrize("head", ["mean", "class"])
@pytest.mark.parametrize("encoding", [*PLANES, "none", "learned", "rope"])
def test_patches_mix_nothing(encoding: str, head: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of images and videos: whole coordinates, and scaled ones, which are float64."""
    axes, found = registry.load(encoding).axes, []
    axes = axes if isinstance(axes, int) and axes > 1 else 2
    side = 4 if axes == 2 else 3
    for attention, scaled in itertools.product(("softmax", "performer"), (False, True)):
        for backend in (
            [one for one in BACKENDS if one not in ("auto", "xformers")] if attention == "softmax" else ["auto"]
        ):
            config = BackboneConfig(
                form="encoder", head=head, outputs=3, vocabulary=1, layers=1, width=96, heads=4, feedforward=64,
                features=32, attention=attention, chunk=16, patch=(2,) * axes,
            )  # fmt: skip
            case = f"{encoding} {attention} {backend} scaled={scaled}"
            try:
                with monkeypatch.context() as patched, fake_card.fakes() as mode, fake_card.Watch(mode) as watch:
                    fake_card.reads(patched, watch, truth=False)
                    try:
                        model = fake_card.on_card(Transformer(config, encoding, side**axes, backend).initialise(0))
                        patches = torch.zeros(2, side**axes, 2**axes, device="cuda")
                        dtype = torch.float64 if scaled else torch.long
                        places = torch.zeros(1, side**axes, axes, device="cuda", dtype=dtype)
                        model.begin_step(0, 1)
                        for _ in range(2):  # the first may look at where patches stand
                            watch.waits.clear()
                            with torch.set_grad_enabled(backend != "flex"), torch.autocast("cuda", torch.bfloat16):
                                out = model.summarise(model.hidden(patches, coordinates=places))
                        assert out.device.type == "cuda" and out.shape == (2, 3)
                    except NotPossibleError:
                        continue
            except Exception as error:
                said = f"{type(error).__name__}: {str(error).strip()[:150]}"
                found.append(f"{case}: {said} at {fake_card.place_of(error)}")
            if watch.waits:
                found.append(f"{case}: {dict(watch.waits)}")
    assert not found, f"{len(found)} cases:\n" + "\n".join(found[:10])


def test_blocks_as_it_was_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its backward under autocast: softmax is promoted to float32, and `baddbmm_` in place is not cast."""
    case = ("t5", "softmax", "decoder", "blocks", "plain")
    assert found_in(*case) is None
    monkeypatch.setattr(blocks._Blocks, "backward", staticmethod(blocks._Blocks._backward))
    found = found_in(*case)
    assert found is not None and "blocks.py" in found and "dtype" in found, found


# Whole steps


TASKS: dict[str, dict[str, Any]] = {
    "enwik8": {}, "multi30k": {}, "mlm": {"training.accumulate": 2}, "glue/sst2": {"start": "scratch"}, "lm": {},
    "images/digits": {"backbone.head": "class"}, "video/moving-digits": {}, "diagnostic/copy": {"evaluation.rows": 8},
}  # fmt: skip
EVERY, STEPS = 3, 7
ALONE = Group()


def loop_of(task: str, folder: Path, encoding: str = "rope", group: Group = ALONE, **changes: Any) -> Loop:
    settings = {
        "runtime.device": "cuda", "runtime.precision": "bfloat16", "training.steps": STEPS, "training.log_every": EVERY,
        "training.validate_every": STEPS, "training.batch": 4, "training.clip": 1.0, "backbone.layers": 1,
        "backbone.width": 32, "backbone.heads": 2, "backbone.feedforward": 32, "backbone.dropout": 0.1,
        **({} if "diagnostic" in task else {"evaluation.tokens": 0 if task == "multi30k" else 512}), **changes,
    }  # fmt: skip
    choice = Selection(scale="smoke", encodings=[encoding], seeds=[0], changes=settings)
    # What an objective keeps is real, since its batches are made by a thread, which has no modes.
    with patch("posenc.training.loop.factory.make", fake_card.outside(factory.make)):
        return Loop(make(find_suite(task), choice).cells[-1], CellTerms("test", folder), lambda: False, group)


def waits_of(loop: Loop, mode: Any, monkeypatch: pytest.MonkeyPatch, steps: int = STEPS) -> Counter[str]:
    """What makes the host wait while a cell warms up and trains, its batches made by the thread."""

    def backward(loss: Tensor, *given: Any, **more: Any) -> None:  # torch's engine asks for a driver
        for parameter in loop.model.parameters():
            parameter.grad = torch.empty_like(parameter)

    monkeypatch.setattr(Tensor, "backward", backward)
    for name in ("validate", "note"):
        monkeypatch.setattr(loop, name, lambda *given: None)
    monkeypatch.setattr(loop.batches, "make", fake_card.outside(loop.batches.make))
    with fake_card.Watch(mode):
        loop.warm_up(1)
    with fake_card.Watch(mode) as watch:
        fake_card.reads(monkeypatch, watch)
        with loop.batches.ahead(loop.seed, range(1, steps + 1)):
            loop._train(range(1, steps + 1))
    return watch.waits


@pytest.mark.parametrize("attention", ["softmax", "performer"])
@pytest.mark.parametrize("task", TASKS)
def test_a_step_waits_for_nothing_but_the_read_of_the_losses(
    task: str, attention: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once at the first step, then every `log_every` steps and at the last."""
    with fake_card.fakes() as mode:
        loop = loop_of(task, tmp_path, **{"backbone.attention": attention, "backbone.redraw": 2, **TASKS[task]})
        waits = waits_of(loop, mode, monkeypatch)
    ((what, times),) = waits.items()
    assert what.startswith("tolist at training/losses.py"), waits
    assert times == 1 + STEPS // EVERY + bool(STEPS % EVERY)


def test_a_read_back_in_a_step_is_found_with_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts of masks and pageable batches, as they were."""
    monkeypatch.setattr(MaskedLM, "indexed", lambda self, batch: batch)
    with fake_card.fakes() as mode, pytest.raises(fake_card.UNKNOWN) as error:
        waits_of(loop_of("mlm", tmp_path / "a"), mode, monkeypatch)
    assert fake_card.place_of(error.value).startswith("objectives/")
    monkeypatch.setattr(Batches, "_ready", lambda self, rows: rows)
    with fake_card.fakes() as mode:
        waits = waits_of(loop_of("enwik8", tmp_path / "b"), mode, monkeypatch)
    assert any(one.startswith("copy from the CPU's pageable memory at training/step.py") for one in waits), waits


@pytest.mark.parametrize("task", TASKS)
def test_scoring_mixes_nothing(task: str, tmp_path: Path) -> None:
    """What scoring runs of the model: its loss, as an evaluation has it, under autocast and without gradients."""
    with fake_card.fakes() as mode:
        loop = loop_of(task, tmp_path, **TASKS[task])
        rows = fake_card.outside(loop.batches.make)(0, 1).parts[0].rows
        with fake_card.Watch(mode) as watch, torch.no_grad(), precision(loop.runtime):
            loss = loop.objective.loss(loop.model.eval(), loop.one_step._on_device(rows))
    assert (loss.device.type, loss.dtype) == ("cuda", torch.float32)
    assert not watch.waits


INDEXED = ("multi30k", "mlm", "diagnostic/copy")
"""Their scoring asks the CPU where a mask is True, of which a fake tensor knows nothing."""


@pytest.mark.parametrize("attention", ["softmax", "performer"])
@pytest.mark.parametrize("task", [task for task in TASKS if task not in INDEXED])
def test_a_whole_validation_mixes_nothing(
    task: str, attention: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The objective's own scoring, batches, sums and all: it may wait, as it reads scores, and mixes nothing."""
    with fake_card.fakes() as mode:
        loop = loop_of(task, tmp_path, **{"backbone.attention": attention, **TASKS[task]})
        with fake_card.Watch(mode) as watch, torch.no_grad(), precision(loop.runtime):
            fake_card.scores(monkeypatch, watch)
            found = loop.objective.score(loop.model.eval(), "validation", loop.length)
    assert found.items > 0 and loop.objective.choice.name in found.values
    assert watch.waits, "scores that nobody has read"


class Averaged(torch.nn.Module):
    """In place of DDP, whose reducer wants a driver: it passes on what it wraps, and knows the parts of a batch."""

    def __init__(self, module: torch.nn.Module, **given: Any) -> None:
        super().__init__()
        assert given == {"broadcast_buffers": False}
        self.module, self.apart = module, 0

    def forward(self, *given: Any, **more: Any) -> Any:
        return self.module(*given, **more)

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        self.apart += 1
        yield


@pytest.mark.parametrize("task", ["enwik8", "mlm"])
def test_a_step_of_a_group_waits_for_no_more(task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of two processes that train a cell together: the others' answers are its own."""
    monkeypatch.setattr("posenc.training.group.DistributedDataParallel", Averaged)
    monkeypatch.setattr(Group, "decide", lambda self, choice: choice)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda *given, **more: None)
    with fake_card.fakes() as mode:
        loop = loop_of(task, tmp_path, group=Group(0, 2), **{**TASKS[task], "training.accumulate": 2})
        assert isinstance(loop.one_step.loss, Averaged)
        waits = waits_of(loop, mode, monkeypatch)
    ((what, times),) = waits.items()
    assert what.startswith("tolist at training/losses.py"), waits
    assert times == 1 + STEPS // EVERY + bool(STEPS % EVERY)
    assert loop.one_step.loss.apart >= STEPS, "gradients are averaged once a batch"
