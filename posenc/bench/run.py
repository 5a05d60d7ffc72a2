"""`posenc bench`: rows of times and memory, and the table that shows them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from posenc.api import registry
from posenc.api.blame import blamed, said
from posenc.attention.softmax.kernel import BACKENDS
from posenc.backbone import cost
from posenc.bench import rates
from posenc.bench.limit import OutOfTime, limited
from posenc.bench.memory import peak_bytes
from posenc.bench.shape import SIZES, Shape
from posenc.bench.subjects import PASSES, Pass, Subject, make_pass, subjects
from posenc.bench.timing import Timed, in_turns, synchroniser
from posenc.common.errors import ConfigError, NotPossibleError, PluginError, PosencError, UnknownNameError
from posenc.common.memory import keep_freed_memory
from posenc.common.terminal import fitted
from posenc.records import provenance
from posenc.training.runtime import require_device, without_subnormals

ATTENTIONS = ("softmax", "performer")
DTYPES = ("float32", "bfloat16")
COMPILE = ("none", "inductor", "cudagraphs")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is compared, on what.

    Attributes:
        rounds: how often each subject is timed. memory: measure the peak of each too. threads: on a CPU.
        size: of all models, a name of SIZES. rows: of a batch, in place of those of the size; 0 leaves them.
        compile: as runtime.compile has it, of steps of posenc's models and the bare one. compile_limit: seconds that
            one subject may take to compile; 0: any.
    """

    encodings: Sequence[str]
    attentions: Sequence[str] = ATTENTIONS
    lengths: Sequence[int] = (512,)
    rounds: int = 20
    device: str = "cpu"
    dtype: str = "float32"
    backend: str = "auto"
    size: str = "small"
    rows: int = 0
    compile: str = "none"
    compile_limit: float = 120.0
    threads: int = 1
    peers: bool = True
    memory: bool = True

    def __post_init__(self) -> None:
        for kind, given, known in (
            *(("attention", one, ATTENTIONS) for one in self.attentions),
            ("dtype", self.dtype, DTYPES),
            ("device", self.device, ("cpu", "cuda")),
            ("backend", self.backend, BACKENDS),
            ("size", self.size, SIZES),
            ("compile", self.compile, COMPILE),
        ):
            if given not in known:
                raise UnknownNameError(kind, given, known, f"--{kind}")
        for name, values in (("lengths", self.lengths), ("rounds", [self.rounds]), ("threads", [self.threads])):
            if not values or min(values) < 1:
                raise ConfigError(f"--{name} {','.join(map(str, values))}: must be at least 1")
        if self.compile_limit < 0:
            raise ConfigError(f"--compile-limit {self.compile_limit:g}: must be seconds, or 0 for no limit")
        if self.rows < 0:
            raise ConfigError(f"--rows {self.rows}: must be at least 1, or 0 for those of --size")
        if self.compile == "cudagraphs" and self.device != "cuda":
            raise ConfigError(f"--compile cudagraphs: must have --device cuda, not {self.device}")
        for encoding in self.encodings:
            with suppress(PluginError):  # its rows say so
                registry.describe(encoding, "--encodings")  # raises where it is none


def measure(options: Options, say: Callable[[str], None] = lambda line: None) -> list[dict[str, Any]]:
    """A row for each subject, pass and length. What cannot run has a row with its reason and no figures.

    Raises:
        NotPossibleError: the device is not there.
    """
    require_device(options.device)
    torch.set_num_threads(options.threads)
    keep_freed_memory()  # as a training does
    made_with = {**provenance.hardware(options.device), "threads": options.threads, "torch": torch.__version__}
    reached = rates.measure(options.device, options.dtype)
    rows = []
    for length in options.lengths:
        shape = replace(SIZES[options.size], length=length)
        shape = replace(shape, rows=options.rows) if options.rows else shape
        for kind in PASSES:
            given = (options.encodings, options.attentions, options.backend, options.device)
            ready = {}
            for subject in subjects(*given, shape, kind, options.peers):
                ready[subject.key] = _ready(subject, shape, kind, options)
            say(f"{kind}, {shape.rows} x {length} tokens: {options.rounds} rounds")
            timed = _times(ready, shape, options)
            for one in ready.values():
                rows.append(
                    _row(one, timed.get(one.subject.key), shape, kind, options, reached) | {"hardware": made_with}
                )
    return rows


@dataclass
class _Ready:
    """A subject with its pass; once that raises, with the reason, and without work: it ends no other's measurement."""

    subject: Subject
    work: Pass | None

    def __call__(self) -> None:
        if self.work is None:
            return
        try:
            self.work()
        except Exception as error:
            self.fail(error)

    def fail(self, error: BaseException) -> None:
        reason = str(error) if isinstance(error, PosencError) else blamed(error) or said(error)
        self.subject, self.work = replace(self.subject, build=None, reason=reason), None


def _ready(subject: Subject, shape: Shape, kind: str, options: Options) -> _Ready:
    """A subject that has run its pass once, compiled where it is to be."""
    ready = _Ready(subject, None)
    if subject.build is None:
        return ready
    compiled = kind == "step" and options.compile != "none" and not subject.is_peer
    try:
        with limited(options.compile_limit if compiled else 0):
            ready.work = make_pass(subject, shape, kind, options.device, options.dtype, options.compile)
            ready()
    except OutOfTime:
        told = f"not compiled within {options.compile_limit:g} s (--compile-limit)"
        ready.fail(NotPossibleError(told))
        torch._dynamo.reset()
    except Exception as error:  # building it, whatever a library raises
        ready.fail(error)
    return ready


def _times(ready: Mapping[str, _Ready], shape: Shape, options: Options) -> dict[str, Timed]:
    """Times of all that ran to the end, by key."""
    runs = {key: one for key, one in ready.items() if one.work}
    suffix = "" if shape.causal else "/both ways"
    bases = {key: f"posenc/{one.subject.attention}/none{suffix}" for key, one in runs.items()}
    beside = {key: base if base in runs else key for key, base in bases.items()}
    with without_subnormals():  # as in training
        timed = in_turns(runs, beside, options.rounds, synchroniser(options.device)) if runs else {}
    return {
        key: one if bases[key] in runs and runs[bases[key]].work else replace(one, ratio=None)
        for key, one in timed.items()
        if runs[key].work
    }


def _row(
    one: _Ready, timed: Timed | None, shape: Shape, kind: str, options: Options, reached: rates.Rates
) -> dict[str, Any]:  # fmt: skip
    subject = one.subject
    flops, moved = _flops(subject, shape, kind), _least_bytes(one, shape, kind, options)
    row: dict[str, Any] = {
        "subject": subject.label,
        "encoding": subject.encoding,
        "attention": subject.attention,
        "backend": subject.backend,
        "pass": kind,
        "length": shape.length,
        "device": options.device,
        "dtype": options.dtype,
        "size": options.size,
        "compile": "none" if kind == "forward" or subject.is_peer else options.compile,
        **_figures(timed),
        "peak_bytes": None,
        "memory_reason": None,
        "flops": flops,
        "matrix_share": flops / timed.seconds.median / reached.flops if flops and timed else None,
        "copy_share": moved / timed.seconds.median / reached.copied if moved and timed else None,
        "reached": asdict(reached),
        "rounds": options.rounds,
        "rows": shape.rows,
        "reason": subject.reason,
    }
    if options.memory and subject.build:
        try:
            row["peak_bytes"] = peak_bytes(_request(subject, shape, kind, options), options.compile_limit)
        except PosencError as error:
            row["memory_reason"] = str(error)
    return row


def _least_bytes(one: _Ready, shape: Shape, kind: str, options: Options) -> float | None:
    """What a pass must move at the least, of posenc's own models: see `FORMULA`."""
    if one.subject.name != "posenc" or one.work is None:
        return None
    parameters = sum(part.nbytes for part in one.work.model.parameters())
    states = shape.rows * shape.length * shape.width * (2 if options.dtype == "bfloat16" else 4)
    return float(parameters + 4 * shape.layers * states) * (3 if kind == "step" else 1)


def _figures(timed: Timed | None) -> dict[str, float | None]:
    names = ("seconds", "seconds_low", "seconds_high", "ratio_to_none", "ratio_low", "ratio_high")
    if timed is None:
        return dict.fromkeys(names)
    parts = (timed.seconds, timed.ratio)
    values = [getattr(part, name, None) for part in parts for name in ("median", "low", "high")]
    return dict(zip(names, values, strict=True))


def _flops(subject: Subject, shape: Shape, kind: str) -> float | None:
    """Floating-point operations of one pass, of posenc's own models: see `FORMULA`."""
    if subject.name != "posenc" or not subject.build:
        return None
    backbone = shape.backbone(subject.attention, subject.causal)
    _, forward = cost.count(backbone, subject.encoding, shape.length, shape.length, subject.axes)
    return forward * shape.rows * shape.length * (3 if kind == "step" else 1)


FORMULA = (
    "FLOPs: matrix products and attention of the forward pass as torch.utils.flop_counter counts them (a"
    " multiply-add is two; causal attention counts every pair), times three for a step; what is computed again in"
    " the backward pass does not count. Share of products: of what this device reached in this run in a product of"
    " large matrices at this precision. Share of copies: the parameters read, and each layer's hidden states read and"
    " written twice, times three for a step, over the time of copying as much: what a pass moves beyond that is not"
    " counted."
)


def _request(subject: Subject, shape: Shape, kind: str, options: Options) -> dict[str, Any]:
    same = {key: getattr(options, key) for key in ("backend", "device", "dtype", "compile", "threads")}
    own = {"key": subject.key, "attention": subject.attention, "encoding": subject.encoding, "kind": kind}
    return {**same, **own, "shape": asdict(shape)}


def tables(rows: Sequence[dict[str, Any]], console: Console) -> list[Table]:
    """One table for each attention, length and pass, with the columns that the terminal has room for."""
    found = []
    for attention, length, kind in dict.fromkeys((row["attention"], row["length"], row["pass"]) for row in rows):
        group = [row for row in rows if (row["attention"], row["length"], row["pass"]) == (attention, length, kind)]
        first = group[0]
        what = "forward" if kind == "forward" else "forward and backward"
        what += "" if first["compile"] == "none" else f", compiled ({first['compile']}) but for other libraries"
        device = first["hardware"]["gpu"] or first["hardware"]["cpu"]
        title = f"{attention}, {first['rows']} x {length} tokens, {what}: {first['dtype']} on {device}"
        found += [fitted(partial(_table, title, [_cells(row) for row in group]), COLUMNS, SPARE, console)[0]]
    return found


def spared(made: Sequence[Table]) -> list[str]:
    """The columns that one of the tables has not."""
    return [name for name in COLUMNS if any(name not in [column.header for column in table.columns] for table in made)]


COLUMNS = (
    "subject", "encoding", "backend", "ms", "over none (95 %)", "peak MB", "TFLOP/s", "% of products", "% of copies",
)  # fmt: skip
SPARE = ("% of copies", "% of products", "TFLOP/s", "backend", "peak MB")
"""Columns that a narrow terminal does not show, the first to go first."""
NAME_WIDTH = 20
"""Longer names of subjects and encodings are folded, so that they drive out no column."""


def _table(title: str, cells: Sequence[dict[str, str]], columns: Sequence[str]) -> Table:
    table = Table(title=title, box=box.SIMPLE, title_justify="left")
    for column in columns:
        named = column in ("subject", "encoding", "backend")
        width = NAME_WIDTH if named else None
        table.add_column(column, justify="left" if named else "right", overflow="fold", max_width=width)
    for row in cells:
        table.add_row(*(Text(row[column]) for column in columns))
    return table


def left_out(rows: Sequence[dict[str, Any]]) -> list[str]:
    """A line for everything that has no figures, with its reason."""
    missing = ((row, row["reason"] or row["memory_reason"]) for row in rows)
    lines = (f"{row['subject']}, {row['attention']}, {row['encoding']}: {why}" for row, why in missing if why)
    return list(dict.fromkeys(lines))


def _cells(row: dict[str, Any]) -> dict[str, str]:
    """A row's texts by column."""
    texts = dict.fromkeys(COLUMNS, "") | {"subject": row["subject"], "encoding": row["encoding"]}
    texts["backend"] = row["backend"] or ""
    if row["seconds"] is None:
        return texts | {"ms": "-", "over none (95 %)": "-"}
    texts["ms"] = f"{row['seconds'] * 1000:.1f}"
    ratio = "-"  # none itself failed
    if row["ratio_to_none"] is not None:
        ratio = f"{row['ratio_to_none']:.3f} [{row['ratio_low']:.3f}, {row['ratio_high']:.3f}]"
    texts["over none (95 %)"] = ratio
    texts["peak MB"] = "" if row["peak_bytes"] is None else f"{row['peak_bytes'] / 1e6:.0f}"
    texts["TFLOP/s"] = "" if row["flops"] is None else f"{row['flops'] / row['seconds'] / 1e12:.3f}"
    for column, share in (("% of products", "matrix_share"), ("% of copies", "copy_share")):
        texts[column] = "" if row[share] is None else f"{100 * row[share]:.0f}"
    return texts
