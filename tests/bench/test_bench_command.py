"""`posenc bench`: its intervals, its turns, its subjects and its rows. Nothing here holds a time against a limit."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from importlib.util import find_spec
from math import comb
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from rich.console import Console

from posenc.backbone.transformer import Transformer
from posenc.bench import peers, pipeline, run
from posenc.bench.bare import BareDecoder
from posenc.bench.memory import peak_bytes
from posenc.bench.shape import SIZES, Shape
from posenc.bench.subjects import make_pass, subjects
from posenc.bench.timing import in_turns, interval
from posenc.cli import main

WIDE = Console(width=200)
pytestmark = pytest.mark.usefixtures("one_thread")

KEYS = {
    "subject", "encoding", "attention", "backend", "pass", "length", "device", "dtype", "seconds", "seconds_low",
    "seconds_high", "size", "compile", "peak_bytes", "ratio_to_none", "ratio_low", "ratio_high", "hardware", "reason",
}  # fmt: skip


@pytest.mark.parametrize("count", [6, 7, 20, 51, 100])
def test_an_interval_covers_95_percent_and_the_next_narrower_one_does_not(count: int) -> None:
    found = interval([float(value) for value in reversed(range(count))])
    assert found.median == (count - 1) / 2
    outside = int(found.low)  # so many values lie below it, and as many above the upper end
    assert found.high == count - 1 - outside

    def coverage(left_out: int) -> float:
        return 1 - 2 * sum(comb(count, k) for k in range(left_out + 1)) / 2**count

    assert coverage(outside) >= 0.95 > coverage(outside + 1)


def test_too_few_values_give_their_range() -> None:
    found = interval([3.0, 1.0, 2.0])
    assert (found.low, found.median, found.high) == (1.0, 2.0, 3.0)


def test_each_subject_runs_beside_its_base_and_either_goes_first() -> None:
    now, done = [0.0], []

    def taking(name: str, seconds: float) -> object:
        def work() -> None:
            done.append(name)
            now[0] += seconds * (1 + len(done) / 1000)  # a machine that gets slower

        return work

    runs = {"none": taking("none", 2.0), "slow": taking("slow", 6.0), "fast": taking("fast", 1.0)}
    timed = in_turns(runs, dict.fromkeys(runs, "none"), 8, clock=lambda: now[0])  # type: ignore[arg-type]
    del done[:6]  # two calls each that are not timed
    assert done[:5] == ["none", "none", "slow", "none", "fast"]
    assert done[5:10] == ["none", "slow", "none", "fast", "none"]
    assert timed["none"].ratio == interval([1.0] * 8)
    assert timed["slow"].ratio.median == pytest.approx(3, rel=0.01)
    assert timed["fast"].ratio.median == pytest.approx(0.5, rel=0.01)
    assert timed["slow"].seconds.median == pytest.approx(6.1, rel=0.03)


def test_the_bare_decoder_does_the_same_work_as_none() -> None:
    shape = Shape(layers=2, width=32, heads=2, feedforward=64, vocabulary=50, length=20)
    own = Transformer(shape.backbone("softmax", True), "none", 20).initialise(3)
    bare = BareDecoder(layers=2, width=32, heads=2, feedforward=64, vocabulary=50)
    renamed = {}
    for name, value in own.state_dict().items():
        short = name.removeprefix("decoder.").replace("feedforward.", "").replace("final_norm", "norm")
        renamed[short.replace("attention.", "")] = value
    bare.load_state_dict(renamed)  # all of them, and no other
    tokens = torch.randint(50, (3, 20))
    torch.testing.assert_close(bare(tokens), own(tokens), atol=1e-5, rtol=0)


@pytest.mark.parametrize("peer", peers.PEERS, ids=lambda peer: f"{peer.package} {peer.encoding} {peer.causal}")
def test_peers_take_the_same_tokens(peer: peers.Peer) -> None:
    if find_spec(peer.module) is None:
        pytest.skip(f"{peer.package} is not installed: pip install posenc[peers]")
    shape = Shape(layers=1, length=8)
    tokens = torch.randint(shape.vocabulary, (2, 8))
    out = peer.build(shape)(tokens)
    assert out.shape == (2, 8, 256)  # logits or hidden states: vocabulary and width are the same number
    out.square().mean().backward()
    changed = tokens.clone()
    changed[:, -1] = (changed[:, -1] + 1) % shape.vocabulary
    model = peer.build(shape).eval()
    same = torch.allclose(model(tokens)[:, :-1], model(changed)[:, :-1], atol=1e-6)
    if peer.attention == "softmax":  # performer-pytorch divides keys by their largest over the whole row
        assert same == peer.causal


def test_rows_are_written_and_nothing_is_left_out_in_silence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "find_spec", lambda module: None)
    file = tmp_path / "rows.json"
    arguments = [
        "bench",
        "--encodings",
        "rope,shaw,nezha,rope_outside",
        "--lengths",
        "4",
        "--rounds",
        "1",
        "--no-memory",
    ]
    done = CliRunner().invoke(main, [*arguments, "--json", str(file)])
    assert done.exit_code == 0, done.output
    rows = json.loads(file.read_text())
    assert all(row.keys() >= KEYS for row in rows)
    by = {(r["subject"], r["attention"], r["encoding"], r["pass"], r["length"]): r for r in rows}
    assert len(by) == len(rows)
    length = 4
    for kind in ("forward", "step"):
        for attention in ("softmax", "performer"):
            assert by["posenc", attention, "none", kind, length]["ratio_to_none"] == 1
        assert by["posenc", "softmax", "shaw", kind, length]["backend"] == "blocks"
        assert "not built: cost" in by["posenc", "performer", "nezha", kind, length]["reason"]
        assert "19" in by["posenc", "softmax", "rope_outside", kind, length]["reason"]
        assert by["x-transformers", "softmax", "rope", kind, length]["reason"] == "not installed"
        assert by["bare decoder", "softmax", "none", kind, length]["seconds"] > 0
        assert by["posenc, both ways", "performer", "none", kind, length]["ratio_to_none"] > 0
    for row in rows:
        assert (row["seconds"] is None) == (row["reason"] is not None)
        if row["seconds"] is not None:
            assert row["seconds_low"] <= row["seconds"] <= row["seconds_high"]
            assert row["ratio_low"] <= row["ratio_to_none"] <= row["ratio_high"]
    for text in ("not installed", "not built: cost", "FLOPs", "tokens ready a second"):
        assert text in done.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--encodings", "ropee"], ["ropee", "rope"]),
        (["--attention", "softmaxx"], ["softmaxx", "softmax"]),
        (["--backend", "flexx"], ["flexx", "flex"]),
        (["--dtype", "float16"], ["float16", "bfloat16"]),
        (["--rounds", "0"], ["--rounds 0"]),
        (["--rows", "-1"], ["--rows -1"]),
        (["--size", "bert"], ["bert", "bert-base"]),
        (["--compile", "yes"], ["yes", "inductor"]),
        (["--compile", "cudagraphs"], ["--device cuda", "cpu"]),
        (["--lengths", "0"], ["--lengths 0"]),
        (["--json", "/no/such/folder/rows.json"], ["/no/such/folder"]),
    ],
)
def test_bad_options_are_named(arguments: list[str], words: list[str]) -> None:
    done = CliRunner().invoke(main, ["bench", *arguments])
    assert done.exit_code == 2
    assert all(word in done.output for word in words)


def test_flex_is_timed_forward_on_a_cpu_and_its_step_has_a_reason() -> None:
    given = (["t5"], ["softmax"], "flex", "cpu", Shape(layers=1, length=8))
    forward, step = ({s.encoding: s for s in subjects(*given, kind, False)} for kind in ("forward", "step"))
    assert forward["t5"].backend == "flex" and forward["t5"].reason is None
    make_pass(forward["t5"], given[-1], "forward", "cpu", "float32")()
    assert "no backward pass on a CPU" in (step["t5"].reason or "")


@pytest.mark.slow
def test_peak_memory_counts_one_pass_in_a_process_of_its_own() -> None:
    shape = {"layers": 1, "width": 64, "heads": 1, "feedforward": 64, "rows": 1, "length": 1500}
    request = {
        "key": "posenc/softmax/t5", "encoding": "t5", "attention": "softmax", "device": "cpu", "dtype": "float32",
        "threads": 1, "shape": shape, "kind": "step",
    }  # fmt: skip
    table, blocks = (peak_bytes({**request, "backend": backend}) for backend in ("reference", "blocks"))
    pairs = 1500 * 1500 * 4
    assert table > 2 * pairs, "weights and scores of all pairs"
    assert 1500 * 64 * 4 < blocks < 2 * pairs


def test_data_and_training_are_timed_on_the_same_tokens() -> None:
    found = pipeline.measure(2, "cpu")
    assert found.tokens_ready > 0 and found.tokens_trained > 0
    assert found.task.startswith("enwik8/")
    assert found.ratio.low <= found.ratio.median <= found.ratio.high


def test_a_table_shows_every_row() -> None:
    options = run.Options(encodings=["none"], attentions=["softmax"], lengths=[4], rounds=1, peers=False, memory=False)
    rows = run.measure(options)
    assert [table.row_count for table in run.tables(rows, WIDE)] == [2, 2]  # none and the bare decoder, in two passes
    assert run.left_out(rows) == []


def test_an_encoder_of_berts_shape_stands_beside_a_bare_one() -> None:
    shape = replace(SIZES["bert-base"], length=4, rows=1)
    found = {s.key: s for s in subjects(["rope"], ["softmax", "performer"], "auto", "cpu", shape, "step", False)}
    assert list(found) == [
        f"{name}/both ways" for name in (
            "posenc/softmax/none", "posenc/softmax/rope", "bare encoder/softmax/none", "posenc/performer/none",
            "posenc/performer/rope",
        )
    ]  # fmt: skip
    config = shape.backbone("softmax", False)
    assert (config.form, config.layers, config.width, config.heads, config.feedforward) == (
        "encoder",
        12,
        768,
        12,
        3072,
    )
    tiny = replace(shape, layers=1, width=16, heads=2, feedforward=8, vocabulary=50)
    for key in ("posenc/softmax/none/both ways", "bare encoder/softmax/none/both ways"):
        model = found[key].build(tiny)  # type: ignore[misc]
        tokens = torch.randint(50, (1, 4))
        changed = tokens.clone()
        changed[:, -1] = (changed[:, -1] + 1) % 50
        assert not torch.allclose(model(tokens)[:, 0], model(changed)[:, 0]), "the first token sees the last"


def test_steps_are_compiled_and_forward_passes_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    compile = torch.compile

    def watched(function: Any, *, options: Any, **given: Any) -> Any:
        asked.append(options.get("triton.cudagraphs", False))
        return compile(function, backend="eager", **given)

    monkeypatch.setattr(torch, "compile", watched)
    torch._dynamo.reset()
    monkeypatch.setattr(peers, "find_spec", lambda module: None)
    options = run.Options(
        encodings=["none"], attentions=["softmax"], lengths=[4], rounds=1, memory=False, compile="inductor"
    )
    rows = run.measure(options)
    for row in rows:
        own = row["subject"] in ("posenc", "bare decoder")
        assert row["compile"] == ("inductor" if own and row["pass"] == "step" else "none")
    assert any(row["subject"] == "x-transformers" for row in rows)
    assert asked == [False, False], "posenc's own and the bare one, a step each"
    assert "compiled (inductor)" in str(run.tables(rows, WIDE)[1].title)


def test_a_subject_that_fails_is_a_row_and_ends_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """When it is built, in its first pass, or in a later one; and none itself, by which others are divided."""

    class Failing(torch.nn.Module):
        def __init__(self, after: int) -> None:
            super().__init__()
            self.after = after

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            self.after -= 1
            if self.after < 0:
                raise RuntimeError("Expected all tensors to be on the same device\nand more")
            return torch.zeros(*tokens.shape, 4, requires_grad=True)

    def broken(shape: Shape) -> torch.nn.Module:
        raise ImportError("built for another torch")

    made = {"builds": broken, "first": lambda shape: Failing(0), "later": lambda shape: Failing(2)}
    monkeypatch.setattr(
        "posenc.bench.subjects.PEERS",
        [peers.Peer(name, "torch", "none", "softmax", True, build) for name, build in made.items()],
    )
    options = run.Options(encodings=["none"], attentions=["softmax"], lengths=[4], rounds=2, memory=False)
    rows = {row["subject"]: row for row in run.measure(options) if row["pass"] == "forward"}
    assert rows["posenc"]["seconds"] and rows["bare decoder"]["seconds"]
    assert rows["builds"]["reason"] == "ImportError: built for another torch"
    for name in ("first", "later"):
        assert rows[name]["reason"] == "RuntimeError: Expected all tensors to be on the same device"
        assert rows[name]["seconds"] is None
    assert 0 < rows["posenc"]["matrix_share"] < 1 and rows["posenc"]["copy_share"] > 0


def test_a_subject_that_does_not_compile_in_time_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def forever(self: Any, graphs: bool) -> None:
        while True:
            with suppress(Exception):  # as a compiler that goes on whatever happens
                sum(range(1000))

    monkeypatch.setattr(Transformer, "compile_training", forever)
    monkeypatch.setattr(BareDecoder, "compile_training", lambda self, graphs: None)
    options = run.Options(
        encodings=["none"], attentions=["softmax"], lengths=[4], rounds=1, peers=False, memory=False,
        compile="inductor", compile_limit=0.2,
    )  # fmt: skip
    rows = {(row["subject"], row["pass"]): row for row in run.measure(options)}
    assert rows["posenc", "step"]["reason"] == "not compiled within 0.2 s (--compile-limit)"
    assert ("bare decoder", "step") in rows and rows["posenc", "forward"]["seconds"], "others go on"
