"""FlexAttention's masks without a table, its kernel options, its gradients; and backends that cannot run here."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from torch.nn.attention.flex_attention import create_block_mask

from posenc.api import registry
from posenc.api.stack import Stack
from posenc.attention.softmax import flex, flex_options, kernel, reference, xformers
from posenc.attention.softmax.call import Call, Needs
from posenc.attention.softmax.flex_options import OPTIONS, Kind, options_for
from posenc.attention.softmax.sight import Sight
from posenc.common.errors import NotPossibleError

pytestmark = pytest.mark.usefixtures("one_thread")
CAUSAL, ENCODER = (
    Stack(layers=1, heads=2, width=32, head_width=16, max_length=1024, causal=causal) for causal in (True, False)
)


@pytest.mark.parametrize("lengths", [(300, 300), (256, 256), (1, 130), (130, 400)])
@pytest.mark.parametrize("window", [None, 1, 100, 200])
@pytest.mark.parametrize("causal", [True, False])
def test_blocks_by_their_ends_are_those_of_all_pairs(
    causal: bool, window: int | None, lengths: tuple[int, int]
) -> None:
    queries, keys = lengths
    sight = Sight(queries=queries, keys=keys, causal=causal, offset=keys - queries, window=window)
    made = sight.block_mask(torch.device("cpu"))
    if made is None:
        assert not causal and window is None
        return
    asked = create_block_mask(sight.pair(), None, None, queries, keys, device="cpu")
    assert torch.equal(made.to_dense(), asked.to_dense())
    for count in ("kv_num_blocks", "full_kv_num_blocks", "q_num_blocks", "full_q_num_blocks"):
        assert torch.equal(getattr(made, count), getattr(asked, count)), count
    assert sight.kept_mask(torch.device("cpu")) is sight.kept_mask(torch.device("cpu")), "made once"


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("ordered", [True, False])
def test_blocks_of_padded_and_packed_rows_lose_no_pair(causal: bool, ordered: bool, fresh_seed: int) -> None:
    """In rows whose examples stand in order they are those of all pairs; where examples come back, at the least."""
    generator = torch.Generator().manual_seed(fresh_seed)
    mask = torch.arange(700) < torch.tensor([[700], [500], [129]])
    segments = torch.randint(0, 4, (3, 700), generator=generator)
    segments = segments.sort(1).values if ordered else segments
    for given in ({"mask": mask}, {"segments": (segments, segments)}, {"mask": mask, "segments": (segments, segments)}):
        sight = Sight(queries=700, keys=700, causal=causal, **given)  # type: ignore[arg-type]
        partial, full = sight.blocks(torch.device("cpu"))
        asked = create_block_mask(sight.pair(), 3, None, 700, 700, device="cpu")
        pairs = torch.zeros(3, 1, 768, 768, dtype=torch.bool)
        b, i, j = torch.meshgrid(torch.arange(3), torch.arange(700), torch.arange(700), indexing="ij")
        pairs[:, 0, :700, :700] = sight.pair()(b, b, i, j)
        tiles = pairs.unflatten(2, (6, 128)).unflatten(4, (6, 128))
        assert not (tiles.any(-1).any(3) & ~(partial | full)).any(), "a block with a pair is left out"
        assert not (full & ~tiles.all(-1).all(3)).any(), "a block with a hidden pair counts as whole"
        if ordered and len(given) == 1:
            assert torch.equal((partial | full), asked.to_dense().bool())


def test_the_gradient_of_the_line_by_flex_is_the_references(monkeypatch: pytest.MonkeyPatch, fresh_seed: int) -> None:
    """torch's CPU form has a backward pass, which it refuses for its speed: here it stands for the GPU's."""
    import torch.nn.attention.flex_attention as torchs

    if not hasattr(torchs, "_validate_device"):
        pytest.skip("this torch checks the device elsewhere")
    monkeypatch.setattr(torchs, "_validate_device", lambda *given: None)
    monkeypatch.setattr(torchs, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", False)
    generator = torch.Generator().manual_seed(fresh_seed)
    found = []
    parts = [torch.randn(2, 2, 150, 16, generator=generator) for _ in range(4)]
    line = torch.randn(2, 299, generator=generator)
    sight = Sight(queries=150, keys=150, causal=True)
    for way in ("flex", "reference"):
        q, k, v, table = (x.clone().requires_grad_() for x in (*parts[:3], line))
        if way == "flex":
            score = flex.score_by_distance(table, None, 0, sight)
            out = torchs.flex_attention(q, k, v, score_mod=score, block_mask=sight.kept_mask(q.device), scale=0.3)
        else:
            bias = table.unfold(1, 150, 1).flip(1)[None].masked_fill(~torch.ones(150, 150).bool().tril(), -torch.inf)
            out = reference.weights(q, k, 0.3, bias) @ v
        (out * parts[3]).sum().backward()
        found.append([out.detach(), *(x.grad for x in (q, k, v, table))])
    for name, got, expected in zip(("out", "queries", "keys", "values", "line"), *found, strict=True):
        torch.testing.assert_close(got, expected, atol=2e-4, rtol=1e-4, msg=lambda told, name=name: f"{name}: {told}")


KIND = Kind("cuda:0", torch.bfloat16, (64, 64), True, False, True)


def test_kernel_options_are_tried_in_order_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flex_options, "_taken", {})
    tried: list[Any] = []

    def attempt(kind: Kind, options: dict[str, Any], fits: int = 2) -> None:
        tried.append(options)
        if len(tried) <= fits:
            raise RuntimeError("inductor") from RuntimeError(
                "No valid triton configs. OutOfMemoryError: out of resource"
            )

    assert options_for(KIND, attempt) == OPTIONS["64 x 64, two stages"]
    assert tried == list(OPTIONS.values())[:3]
    assert options_for(KIND, attempt) is not None and len(tried) == 3, "once in a process"
    assert flex_options.taken() == {"bfloat16, heads of 64, line, forward and backward": "64 x 64, two stages"}

    monkeypatch.setattr(flex_options, "_taken", {})
    tried.clear()
    with pytest.raises(NotPossibleError, match=r"no kernel fits this card.*32 x 32.*inductor"):
        options_for(KIND, lambda kind, options: attempt(kind, options, 9))

    def broken(kind: Kind, options: dict[str, Any]) -> None:
        raise ImportError("no module named triton\nand more")

    with pytest.raises(NotPossibleError, match=r"flex.*ImportError: no module named triton$"):
        options_for(KIND, broken)


def test_past_the_limit_of_compilations_flex_is_an_error_not_eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a compiler that makes nothing: what counts is what happens once too many kinds of calls were asked for."""
    torch._dynamo.reset()
    whole = torch.compile(lambda x: x + 1, backend="eager", fullgraph=True, dynamic=False)
    monkeypatch.setattr(flex, "_compiled", lambda: lambda q, *rest, **more: whole(q))
    monkeypatch.setattr(flex, "options_for", lambda *given: {})
    heads = [torch.zeros(1, 1, n, 16, device="meta") for n in (4, 5)]
    with torch._dynamo.config.patch(recompile_limit=1):  # which monkeypatch would leave without the name
        flex._call(heads[0], heads[0], heads[0], None, None, 1.0)
        with pytest.raises(NotPossibleError, match=r"flex.* over 64 kinds of calls"):
            flex._call(heads[1], heads[1], heads[1], None, None, 1.0)
    torch._dynamo.reset()


def test_operands_are_never_wider_than_the_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """An encoding that rotates in float32 makes no float32 kernel."""
    seen = []
    monkeypatch.setattr(flex, "_call", lambda q, k, v, *rest: (seen.append((q.dtype, k.dtype, v.dtype)), v)[1:] * 2)
    wide, narrow = torch.zeros(1, 1, 4, 16), torch.zeros(1, 1, 4, 16, dtype=torch.bfloat16)
    flex.attend(Call(queries=wide, keys=wide, values=narrow, scale=1.0, causal=True))
    assert seen == [(torch.bfloat16,) * 3]


def test_auto_takes_flex_on_a_gpu_from_a_length_on() -> None:
    def taken(name: str, tokens: int, stack: Stack = CAUSAL, device: str = "cuda") -> str:
        return kernel.choose("auto", Needs(registry.create(name, stack), 0.0, device, True, tokens=tokens))

    for name in ("t5", "alibi", "shaw"):
        assert taken(name, kernel.FLEX_FROM) == "flex"
        assert taken(name, kernel.FLEX_FROM - 1) == ("reference" if name == "shaw" else "sdpa")
        assert taken(name, 0) == taken(name, 1), "in cached decoding"
        assert taken(name, kernel.FLEX_FROM, device="cpu") == "blocks"
    assert taken("shaw", kernel.FLEX_FROM, ENCODER) == "reference", "it has no form of it both ways"
    assert taken("rope", kernel.FLEX_FROM) == taken("none", kernel.FLEX_FROM) == "sdpa"


# Backends that cannot run here


def test_a_backend_that_fails_on_tiny_tensors_is_refused_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel.fails_here.cache_clear()
    assert kernel.fails_here("sdpa", "cpu", torch.bfloat16) is None

    def fails(backend: str, call: Call) -> None:
        raise RuntimeError("CUDA error: no kernel image is available\nmore lines")

    monkeypatch.setattr(kernel, "attend", fails)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    kernel.fails_here.cache_clear()
    reason = kernel.fails_here("sdpa", "cpu", torch.float32)
    assert reason is not None and "\n" not in reason and "no kernel image is available" in reason
    monkeypatch.setattr(kernel, "fails_here", lambda *given: reason)
    with pytest.raises(NotPossibleError, match="no kernel image"):
        kernel.require_kernel("xformers", "cuda", torch.bfloat16)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    kernel.require_kernel("xformers", "cuda", torch.bfloat16)  # a plan for another machine


def _module(name: str, **parts: Any) -> ModuleType:
    made = ModuleType(name)
    made.__dict__.update(parts)
    return made


class _Refusing(ModuleType):
    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("operator torchvision::nms does not exist\nand lines")


@pytest.mark.parametrize(
    ("modules", "said"),
    [
        ({"xformers": None}, "cannot be imported: "),
        ({"xformers": _Refusing("xformers")}, "RuntimeError: operator torchvision::nms does not exist"),
        ({"xformers": _module("xformers", ops=1)}, "cannot be imported: ImportError"),
    ],
    ids=["missing", "foreign", "old"],
)
def test_a_missing_old_or_foreign_xformers_is_a_line(
    modules: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "xformers"]:
        monkeypatch.delitem(sys.modules, name)
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    xformers.load.cache_clear()
    with pytest.raises(NotPossibleError) as found:
        xformers.load()
    assert said in str(found.value) and "\n" not in str(found.value)


def test_xformers_operators_load_where_torch_is_built_for_cuda() -> None:
    """No card is needed; elsewhere the line names the library that was missing."""
    pytest.importorskip("xformers", exc_type=ImportError)
    xformers.load.cache_clear()
    if torch.version.cuda is None:
        with pytest.raises(NotPossibleError, match=r"^not possible: backend 'xformers' cannot load its operators: lib"):
            xformers.load()
        pytest.skip("this torch is built for the CPU alone: there is nothing that xformers' operators could link to")
    assert xformers.load().fmha.cutlass.FwOp.is_available() and xformers.load().fmha.cutlass.BwOp.is_available()


@pytest.mark.parametrize("length", [16, 21])
def test_a_table_for_xformers_is_aligned_and_passes_its_gradient_on(length: int, fresh_seed: int) -> None:
    table = torch.randn(1, 2, length, length, generator=torch.Generator().manual_seed(fresh_seed), requires_grad=True)
    queries = torch.zeros(3, 2, length, 8, dtype=torch.bfloat16)
    laid = xformers.aligned(table, queries)
    assert laid.shape == (3, 2, length, length) and laid.dtype == torch.bfloat16
    assert laid.stride(-1) == 1 and all(step % xformers.STEP == 0 for step in laid.stride()[:-1])
    assert torch.equal(laid[2], table[0].to(torch.bfloat16))
    laid.sum().backward()
    assert table.grad is not None and (table.grad == 3).all()
    hidden = torch.ones(length, length).bool().tril()[None, None]
    assert torch.equal(xformers.aligned(hidden, queries)[0, 0] == 0, hidden[0, 0])
